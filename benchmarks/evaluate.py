"""python benchmarks/evaluate.py [--people=500 --distractors=13233 --rounds=3 ...]
python benchmarks/evaluate.py --distractors=1000000 --mapped --peer_people=1 --rounds=1

Seconds of the 1:N identification of random unit features: opom_jax for all people, the published
protocol (probe by probe in numpy) for the first `--peer_people`, its time scaled by the number of
tests. They take turns. A first call of ours, not in the table, compiles and shows how much memory
the process takes. Exits 1 if a rank differs by more than 1 between the two, or more than 10 for a
million distractors (float32 may order nearly equal ones either way).
"""

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from benchmarks import published_evaluation, timing  # noqa: E402
from opom_jax.evaluation import identification  # noqa: E402

OURS, PEER = "opom_jax", "published protocol in numpy"
LIKENESS = 0.35  # of a person's photos; their cosine is about 0.1, so that ranks of all sizes occur
DRAWN = 1000  # distractors at once

FLAGS = flags.FLAGS
flags.DEFINE_integer("people", 500, "People.", lower_bound=1)
flags.DEFINE_integer("peer_people", 10, "Of them for the peer.", lower_bound=1)
flags.DEFINE_integer("photos", 10, "Photos of a person.", lower_bound=2)
flags.DEFINE_integer("distractors", 13_233, "Distractors.", lower_bound=1)
flags.DEFINE_bool("mapped", False, "Distractors in a temporary file, mapped, not in memory.")
flags.DEFINE_integer("dimension", 512, "D.", lower_bound=1)
flags.DEFINE_integer("rounds", 3, "Turns of each program.", lower_bound=1)
flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results"), "Folder of the CSV.")


def unit(features: np.ndarray) -> np.ndarray:
    """f32[B,D] of length 1 from f64[...,D]."""
    flat = features.reshape(-1, features.shape[-1])
    return (flat / np.linalg.norm(flat, axis=-1, keepdims=True)).astype(np.float32)


def drawn(people: int, file: BinaryIO) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features f32[B,D] of masked photos and of clean ones, and of the distractors, f32[G,D]."""
    rng = np.random.default_rng(0)
    shape = people, FLAGS.photos, FLAGS.dimension
    centres = LIKENESS * rng.standard_normal((people, 1, FLAGS.dimension))
    masked, clean = (unit(centres + rng.standard_normal(shape)) for _ in range(2))
    shape = FLAGS.distractors, FLAGS.dimension
    if FLAGS.mapped:
        distractors = np.memmap(file, np.float32, "w+", shape=shape)
    else:
        distractors = np.empty(shape, np.float32)
    for start in range(0, len(distractors), DRAWN):
        rows = distractors[start : start + DRAWN]
        rows[:] = unit(rng.standard_normal(rows.shape))
    return masked, clean, distractors


@contextmanager
def memory() -> Iterator[list[int]]:
    """KiB of the process at moments within the block, where there is Linux; mapped files, whose
    pages the system takes back, do not count."""
    seen, over = [], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            lines = Path("/proc/self/status").read_text().splitlines()
            seen.append(next(int(x.split()[1]) for x in lines if x.startswith("RssAnon")))

    watcher = threading.Thread(target=watch)
    if Path("/proc/self/status").exists():
        watcher.start()
    yield seen
    over.set()
    if watcher.ident:
        watcher.join()


def main(argv: list[str]) -> int:
    """Measures, prints the table, writes the CSV; returns the exit code."""
    del argv
    with tempfile.TemporaryFile() as file:
        return measure(file)


def measure(file: BinaryIO) -> int:
    """What `main` does, with a file for the distractors."""
    machine = timing.machine("float32")
    people, photos = FLAGS.people, FLAGS.photos
    masked, clean, distractors = drawn(people, file)

    def ours() -> np.ndarray:
        """i64[tests] ranks of all people."""
        return identification.ranks(masked, clean, [photos] * people, distractors).rank

    def peer() -> np.ndarray:
        """i64[tests] ranks of the first people."""
        some = slice(FLAGS.peer_people * photos)
        return published_evaluation.evaluate(masked[some], clean[some], distractors, photos)[1]

    with memory() as kib:
        ours()
    turns = timing.take_turns({OURS: ours, PEER: peer}, FLAGS.rounds)
    ranks = {turn.program: turn.result for turn in turns}
    tests = {OURS: len(ranks[OURS]), PEER: len(ranks[PEER])}
    apart = np.abs(ranks[OURS][: tests[PEER]] - ranks[PEER])
    rows = timing.report(
        turns,
        tests,
        "test",
        lambda turn: {"seconds_all": turn.wall / tests[turn.program] * tests[OURS]},
    )
    print(f"The peer did {tests[PEER]} of {tests[OURS]} tests: seconds_all scales its time up.")
    about = {
        "people": people,
        "photos": photos,
        "distractors": FLAGS.distractors,
        "dimension": FLAGS.dimension,
        "peak_mib": max(kib, default=0) // 1024,
        "unequal_ranks": np.count_nonzero(apart),
        "most_apart": apart.max(),
        **machine,
    }
    timing.write(FLAGS.out, f"evaluate_{FLAGS.distractors}", rows, about)
    return int(apart.max() > max(1, FLAGS.distractors // 100_000))


if __name__ == "__main__":
    app.run(main)
