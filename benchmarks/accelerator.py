"""python benchmarks/accelerator.py [--out=FOLDER] [--only=NAME,...]

Everything that is to be measured on an accelerator, one after the other in processes of their own,
a log each in FOLDER: `bench` with IR-50 in bfloat16 for growing batches and for 500 people, and in
float32, the published loop beside it (where torch has CUDA), the evaluation, the scaling over
--devices, and what masks in bfloat16 protect on real faces compared with float32 (where
OPOM_REAL_DATA has them). Ends with one line for each; exits 1 if one failed, or if protection rates
are further apart than `APART`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from absl import app, flags

ROOT = Path(__file__).resolve().parents[1]
REAL = os.environ.get("OPOM_REAL_DATA", "")
PEOPLE = (25, 50, 100, 200)
EVERYBODY, TOGETHER = 500, 32  # people whose masks are to take a few seconds, and in batches of
PROTECTION = ("real_float32", "real_bfloat16")
APART = 0.5  # points of mean Top-1

FLAGS = flags.FLAGS
flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results"), "Folder for CSVs and logs.")
flags.DEFINE_list("only", [], "Names of what to do; empty for all.")
flags.DEFINE_list("devices", ["1"], "Numbers of devices to scale over.")
flags.register_validator("devices", lambda counts: all(map(str.isdigit, counts)), "numbers")
flags.DEFINE_integer("limit", 900, "Seconds that each may take.", lower_bound=1)


def bench(people: int, precision: str, total: int = 0) -> list[str]:
    """The verb, with random weights."""
    out = Path(FLAGS.out, f"{precision}_{total or people}")
    given = {"architecture": "ir_50", "people": people, "precision": precision, "out": out}
    given |= {"total": total}
    return ["run.py", "bench", *(f"--{key}={value}" for key, value in given.items())]


def real_faces(precision: str) -> list[list[str]]:
    """Masks in a precision, evaluated in float32."""
    nets, run = Path(FLAGS.out, f"nets_{precision}"), Path(FLAGS.out, f"real_{precision}")
    files = {"xiaoccer": "068.ckpt", "foamliu": "mobile_face.pth"}
    converted = [
        [
            *("run.py", "convert", f"--network=mobilefacenet_{name}", f"--out={nets / name}"),
            f"--weights={Path(REAL, 'weights', f'mobilefacenet_{name}', file)}",
        ]
        for name, file in files.items()
        if not (nets / name / "card.json").exists()
    ]
    data = f"--config.data.people={REAL}/faces_112/lfw"
    others = f"--config.data.distractors={REAL}/faces_112/lfw_distractors"
    return [
        *converted,
        [
            *("run.py", "generate", f"--workdir={run}", data),
            *(f"--config.surrogate={nets}/xiaoccer", f"--config.precision={precision}"),
        ],
        [
            *("run.py", "evaluate", f"--workdir={run}", data, others),
            f"--config.targets={nets}/xiaoccer,{nets}/foamliu",
        ],
    ]


def commands() -> dict[str, list[list[str]]]:
    """Name -> commands, in the order in which they are run."""
    out = f"--out={FLAGS.out}"
    peer = ["benchmarks/generate.py", "--network=ir_50", "--people=4", "--peer_people=2", out]
    found = {f"bfloat16_{people}": [bench(people, "bfloat16")] for people in PEOPLE}
    found |= {f"bfloat16_{EVERYBODY}": [bench(TOGETHER, "bfloat16", EVERYBODY)]}
    found |= {"float32": [bench(25, "float32")], "torch_float32": [peer]}
    found |= {"evaluate": [["benchmarks/evaluate.py", out]]}
    people = TOGETHER * max(map(int, FLAGS.devices))
    scaled = [f"--devices={','.join(FLAGS.devices)}", "--processes=", f"--people={people}"]
    scaled += [f"--people_per_batch={TOGETHER}", out]
    found |= {"scaling": [["benchmarks/scaling.py", *scaled]]}
    if REAL:
        found |= {name: real_faces(name.removeprefix("real_")) for name in PROTECTION}
    if unknown := set(FLAGS.only) - found.keys():
        sys.exit(f"--only={','.join(sorted(unknown))} is unknown; choose from {', '.join(found)}.")
    return {name: each for name, each in found.items() if not FLAGS.only or name in FLAGS.only}


def far_apart() -> bool:
    """Whether the two precisions protect differently; says how much they do."""
    files = [Path(FLAGS.out, name, "results.json") for name in PROTECTION]
    if not all(file.exists() for file in files):
        return False
    one, two = (json.loads(file.read_text())["mean"]["masked"]["top1"] for file in files)
    print(f"mean Top-1 protection: float32 {one:.2f}, bfloat16 {two:.2f} (limit {APART} apart)")
    return abs(one - two) > APART


def main(argv: list[str]) -> int:
    """Runs all, says how each ended; returns the exit code."""
    del argv
    said, failed = [], 0
    Path(FLAGS.out).mkdir(parents=True, exist_ok=True)
    for name, each in commands().items():
        start, code = perf_counter(), 0
        with open(Path(FLAGS.out, f"{name}.log"), "w") as log:
            for command in each:
                try:
                    call = [sys.executable, *command]
                    done = subprocess.run(
                        call, cwd=ROOT, stdout=log, stderr=log, timeout=FLAGS.limit
                    )
                    code = code or done.returncode
                except subprocess.TimeoutExpired:
                    code = 124
        failed |= code
        said.append(f"{name:16} exit {code}, {perf_counter() - start:.0f} s")
        print(said[-1], flush=True)
        print("".join(Path(FLAGS.out, f"{name}.log").read_text().splitlines(True)[-24:]))
    print("\n".join(said))
    return int(failed != 0 or far_apart())


if __name__ == "__main__":
    app.run(main)
