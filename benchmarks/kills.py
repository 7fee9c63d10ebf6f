"""python benchmarks/kills.py [--people=200 --kills=20]

`generate` is killed (SIGKILL) at random moments, started again each time, and at last left alone:
its masks, journal and config must be those of an undisturbed run, byte for byte. Exits 1 if they
are not. Says, too, how long the undisturbed run's device waited for files.
"""

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, sleep

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks import timing  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_integer("people", 200, "People.", lower_bound=1)
flags.DEFINE_integer("photos", 2, "Photos of a person.", lower_bound=1)
flags.DEFINE_integer("steps", 16, "Steps.", lower_bound=1)
flags.DEFINE_integer("people_per_batch", 4, "Stored together.", lower_bound=1)
flags.DEFINE_integer("kills", 20, "Kills.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of the moments.")
flags.DEFINE_string("network", "zoo:surrogate_softmax", "Folder of a converted network.")
flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results"), "Folder of the CSV.")


def draw(folder: Path, size: int = 112) -> Path:
    """A folder of people whose photos are smooth noise."""
    rng = np.random.default_rng(0)
    for person in range(FLAGS.people):
        own = folder / f"{person:05d}"
        own.mkdir(parents=True)
        for k in range(FLAGS.photos):
            coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8))
            coarse.resize((size, size), Image.Resampling.BICUBIC).save(own / f"{k}.png")
    return folder


def start(people: Path, workdir: Path) -> subprocess.Popen:
    """`generate` in a process of its own."""
    config = {
        "surrogate": FLAGS.network,
        "data.people": people,
        "data.train_per_person": FLAGS.photos,
        "steps": FLAGS.steps,
        "people_per_batch": FLAGS.people_per_batch,
    }
    given = [f"--config.{key}={value}" for key, value in config.items()]
    command = [sys.executable, str(ROOT / "run.py"), "generate", f"--workdir={workdir}", *given]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=pipe, text=True)


def made(workdir: Path) -> int:
    """Masks that are there."""
    return sum(1 for _ in workdir.glob("masks/mask_id*.npy"))


def content(workdir: Path) -> dict[str, bytes]:
    """Every file but the locks, by its path."""
    files = (path for path in workdir.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(workdir)): path.read_bytes() for path in files}


def undisturbed(people: Path, workdir: Path) -> tuple[float, float, str]:
    """Seconds until the first mask, seconds in all, and what was said last."""
    began, process = perf_counter(), start(people, workdir)
    while process.poll() is None and not made(workdir):
        sleep(0.01)
    first = perf_counter() - began
    said = process.communicate()[1]
    if process.returncode:
        sys.exit(said)
    return first, perf_counter() - began, said.strip().splitlines()[-1]


def killed(people: Path, workdir: Path, first: float, whole: float) -> Iterator[dict]:
    """Kills one run after the other, each at a drawn moment: while it starts, or in what is left of
    the work, of which all of them are to have some."""
    draw_moment = random.Random(FLAGS.seed)
    for number in range(1, FLAGS.kills + 1):
        left = (1 - made(workdir) / FLAGS.people) / (FLAGS.kills + 1 - number + 1)
        moment = draw_moment.uniform(0, first + 2 * left * (whole - first))
        process = start(people, workdir)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        row = {"kill": number, "seconds": round(moment, 2), "masks": made(workdir)}
        yield row | {"exit": process.returncode}


def main(argv: list[str]) -> int:
    """Kills, compares, writes the CSV; returns the exit code."""
    del argv
    machine = timing.machine("float32")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        people = draw(root / "people")
        undisturbed(people, root / "warm")  # compiles
        first, whole, said = undisturbed(people, root / "alone")
        print(f"Undisturbed: {whole:.1f} s, the first mask after {first:.1f} s; {said}", flush=True)
        rows = []
        for row in killed(people, root / "killed", first, whole):
            rows.append(row)
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        undisturbed(people, root / "killed")
        equal = content(root / "killed") == content(root / "alone")
    died = sum(row["exit"] < 0 for row in rows)
    print(f"{died} of {len(rows)} runs died; the files are {'' if equal else 'NOT '}byte-equal.")
    names = ("people", "photos", "steps", "people_per_batch")
    about = {name: FLAGS[name].value for name in names} | {"byte_equal": equal, "said": said}
    timing.write(FLAGS.out, "kills", rows, about | machine)
    return int(not (equal and died == len(rows)))


if __name__ == "__main__":
    app.run(main)
