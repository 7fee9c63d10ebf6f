"""python benchmarks/evaluate.py [--people=500 --distractors=13233 --rounds=3 ...]

Seconds of the 1:N identification of random unit features, in memory: opom_jax for all people, the
published protocol (probe by probe in numpy) for the first `--peer_people`, its time scaled by the
number of tests. They take turns. Compiling is left out. Exits 1 if a rank differs by more than 1
between the two (float32 may order two nearly equal distractors either way).
"""

import sys
from pathlib import Path

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

FLAGS = flags.FLAGS
flags.DEFINE_integer("people", 500, "People.", lower_bound=1)
flags.DEFINE_integer("peer_people", 10, "Of them for the peer.", lower_bound=1)
flags.DEFINE_integer("photos", 10, "Photos of a person.", lower_bound=2)
flags.DEFINE_integer("distractors", 13_233, "Distractors.", lower_bound=1)
flags.DEFINE_integer("dimension", 512, "D.", lower_bound=1)
flags.DEFINE_integer("rounds", 3, "Turns of each program.", lower_bound=1)
flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results"), "Folder of the CSV.")


def unit(features: np.ndarray) -> np.ndarray:
    """f32[B,D] of length 1 from f64[...,D]."""
    flat = features.reshape(-1, features.shape[-1])
    return (flat / np.linalg.norm(flat, axis=-1, keepdims=True)).astype(np.float32)


def main(argv: list[str]) -> int:
    """Measures, prints the table, writes the CSV; returns the exit code."""
    del argv
    machine = timing.machine("float32")
    rng = np.random.default_rng(0)
    people, photos = FLAGS.people, FLAGS.photos
    shape = people, photos, FLAGS.dimension
    centres = LIKENESS * rng.standard_normal((people, 1, FLAGS.dimension))
    masked, clean = (unit(centres + rng.standard_normal(shape)) for _ in range(2))
    distractors = unit(rng.standard_normal((FLAGS.distractors, FLAGS.dimension)))
    few = min(FLAGS.peer_people, people)

    def ours(people: int = people) -> np.ndarray:
        """i64[tests] ranks of the first people."""
        some = slice(people * photos)
        return identification.ranks(masked[some], clean[some], [photos] * people, distractors).rank

    def peer() -> np.ndarray:
        """i64[tests] ranks of the first `few` people."""
        some = slice(few * photos)
        return published_evaluation.evaluate(masked[some], clean[some], distractors, photos)[1]

    ours(few)  # compiles
    turns = timing.take_turns({OURS: ours, PEER: peer}, FLAGS.rounds)
    ranks = {turn.program: turn.result for turn in turns}
    tests = {OURS: len(ranks[OURS]), PEER: len(ranks[PEER])}
    apart = np.abs(ranks[OURS][: tests[PEER]] - ranks[PEER])
    about = {
        "people": people,
        "photos": photos,
        "distractors": FLAGS.distractors,
        "dimension": FLAGS.dimension,
        "unequal_ranks": int(np.count_nonzero(apart)),
        **machine,
    }
    rows = timing.report(
        turns,
        tests,
        "test",
        lambda turn: {"seconds_all": turn.wall / tests[turn.program] * tests[OURS]},
    )
    print(f"The peer did {tests[PEER]} of {tests[OURS]} tests: seconds_all scales its time up.")
    print(f"Of its ranks {about['unequal_ranks']} differ from ours, by at most {apart.max()}.")
    timing.write(FLAGS.out, "evaluate", rows, about)
    return int(apart.max() > 1)


if __name__ == "__main__":
    app.run(main)
