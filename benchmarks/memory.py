"""python benchmarks/memory.py [--people=1000,100000 --photos=10]

Peak memory of the host, and the time that the device waits for files, when `generate` makes masks
of few and of very many people: every number in a process of its own, with a network so small that
files are most of the work. Exits 1 if the last number needs more than 5 % above the first.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from opom_jax.cli import main as opom_jax  # noqa: E402
from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import resource  # noqa: E402

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks import timing  # noqa: E402
from opom_jax.networks import recognizer  # noqa: E402
from opom_jax.networks.registry import NETWORKS, Spec  # noqa: E402
from tests.tiny import SIZE, Small  # noqa: E402

DISTINCT = 100  # photos; all others are links to them
LIMIT = 1.05

FLAGS = flags.FLAGS
flags.DEFINE_list("people", ["1000", "100000"], "Numbers of people.")
flags.DEFINE_integer("photos", 10, "Photos of a person.", lower_bound=1)
flags.DEFINE_integer("batch", 100, "People computed together.", lower_bound=1)
flags.DEFINE_string("folder", "", "Of the photos, for one measurement; the script's own flag.")
flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results"), "Folder of the CSV.")


def draw(folder: Path, people: int) -> None:
    """Folders of people with links to a few random pictures."""
    rng, pictures = np.random.default_rng(0), []
    folder.mkdir()
    for k in range(DISTINCT):
        pictures.append(folder.parent / f"{k}.png")
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(pictures[-1])
    for person in range(people):
        own = folder / f"{person:07d}"
        own.mkdir()
        for k in range(FLAGS.photos):
            os.link(pictures[(person + 7 * k) % DISTINCT], own / f"{k:03d}.png")


def worker(root: Path) -> int:
    """Makes the masks and prints the peak memory of this process in MiB."""
    NETWORKS["tiny"] = Spec(Small, embedding=8, layout="", size=SIZE)
    rng = np.random.default_rng(0)
    shapes = recognizer.abstract_params("tiny")
    arrays = {path: rng.normal(0, 0.3, v.shape).astype(np.float32) for path, v in shapes.items()}
    recognizer.save(root / "network", "tiny", arrays, {})
    keys = {
        "surrogate": root / "network",
        "data.people": root / "people",
        "data.image_size": SIZE,
        "data.train_per_person": FLAGS.photos,
        "people_per_batch": FLAGS.batch,
        "steps": 2,
    }
    given = [f"--config.{key}={value}" for key, value in keys.items()]
    code = opom_jax(["opom-jax", "generate", f"--workdir={root / 'run'}", *given])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return code


def measured(people: int) -> dict[str, float | str]:
    """A row of the CSV."""
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder, "people"), people)
        own = [f"--{name}={FLAGS[name].value}" for name in ("photos", "batch")]
        command = [sys.executable, __file__, f"--folder={folder}", *own]
        own_cache = os.environ | {"XDG_CACHE_HOME": folder}  # all of them compile
        start = perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=own_cache)
        seconds = perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    waited = done.stderr.rsplit("% of the time waiting", 1)[0].rsplit(" ", 1)[1]
    row = {"people": people, "peak_mib": round(float(done.stdout.split()[-1]), 1)}
    return row | {"seconds": round(seconds, 1), "waited_percent": waited}


def main(argv: list[str]) -> int:
    """Measures, prints the table, writes the CSV; returns the exit code."""
    del argv
    if FLAGS.folder:
        return worker(Path(FLAGS.folder))
    about = {"photos": FLAGS.photos, "people_per_batch": FLAGS.batch, **timing.machine("float32")}
    rows = []
    for people in map(int, FLAGS.people):
        rows.append(measured(people))
        print(", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    timing.write(FLAGS.out, "memory", rows, about)
    return int(rows[-1]["peak_mib"] > LIMIT * rows[0]["peak_mib"])


if __name__ == "__main__":
    app.run(main)
