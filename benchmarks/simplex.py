"""python benchmarks/simplex.py [--people=500 --peer_problems=50 --rounds=3]

Simplex QPs a second and how exact: opom_jax for ten photos of all people in one call, cvxpy as the
published code calls it, cvxpy at its best (one problem with parameters, OSQP at 1e-8), and an exact
active set in float64, which the others are compared with. They take turns; one at a time does the
first `--peer_problems`. The error of a solution is the distance of its point from the exact nearest
point, relative to the residual. Exits 1 if one of ours is above 1e-3.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

try:
    import cvxpy  # noqa: E402
except ImportError:
    sys.exit("The peer needs cvxpy: pip install -e '.[benchmark]'.")

from benchmarks import exact_simplex, published_loop, timing  # noqa: E402
from opom_jax.masks.simplex import simplex_least_squares  # noqa: E402

OURS, EXACT = "opom_jax", "active set, float64"
PUBLISHED, PARAMETERS = "cvxpy, as published", "cvxpy, parameters, OSQP 1e-8"
LIMIT = 1e-3  # of the relative error: below, 0.15 % of a mask's signs depend on it at most

FLAGS = flags.FLAGS
flags.DEFINE_integer("people", 500, "People.", lower_bound=1)
flags.DEFINE_integer("photos", 10, "Photos of a person, N.", lower_bound=1)
flags.DEFINE_integer("dimension", 512, "D.", lower_bound=2)
flags.DEFINE_integer("peer_problems", 50, "For the peers.", lower_bound=1)
flags.DEFINE_integer("rounds", 3, "Turns of each program.", lower_bound=1)
flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results"), "Folder of the CSV.")


def draw(people: int, photos: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit features f32[P,N,D]: clean ones of cosine 0.6 within a person, and masked ones at all
    stages of an attack: from near their own clean one to between all of them and away."""
    rng = np.random.default_rng(0)
    shape = people, photos, dimension
    centre = rng.standard_normal((people, 1, dimension))
    clean = centre + 0.8 * rng.standard_normal(shape)
    stage = rng.uniform(0, 1, (people, photos, 1))
    between = rng.dirichlet(np.ones(photos), (people, photos)) @ clean
    away = rng.standard_normal(shape) - centre
    masked = (1 - stage) * clean + stage * (between + away)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (clean, masked)]
    return unit[0].astype(np.float32), unit[1].astype(np.float32)


def with_parameters(photos: int):
    """A solver (clean f64[N,D], masked f64[D]) -> f64[N]: one problem, compiled once by cvxpy, of
    the triangular factor of the Gram matrix."""
    factor, right = cvxpy.Parameter((photos, photos)), cvxpy.Parameter(photos)
    a = cvxpy.Variable(photos)
    distance = cvxpy.sum_squares(factor @ a - right)
    problem = cvxpy.Problem(cvxpy.Minimize(distance), [cvxpy.sum(a) == 1, a >= 0])

    def solve(clean: np.ndarray, masked: np.ndarray) -> np.ndarray:
        factor.value = np.linalg.cholesky(clean @ clean.T).T
        right.value = np.linalg.solve(factor.value.T, clean @ masked)
        problem.solve(solver=cvxpy.OSQP, eps_abs=1e-8, eps_rel=1e-8, warm_start=False)
        return a.value

    return solve


def exactly(hull: np.ndarray, point: np.ndarray) -> np.ndarray:
    """f64[N] in float64."""
    return exact_simplex.solve(hull.astype(np.float64), point.astype(np.float64))


def published(hull: np.ndarray, point: np.ndarray) -> np.ndarray:
    """f64[N] as the published code does it."""
    return published_loop.project(point, hull, 0.0, 1.0)


def programs(clean: np.ndarray, masked: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """The programs, warmed up; each returns coefficients [problems,N]."""
    people, photos = clean.shape[:2]
    pairs = [(clean[k // photos], masked[k // photos, k % photos]) for k in range(people * photos)]
    bounds = np.zeros(photos, np.float32), np.ones(photos, np.float32)
    of_person = jax.vmap(simplex_least_squares, (None, 0, None, None))
    batched = jax.jit(jax.vmap(of_person, (0, 0, None, None)))

    def ours() -> np.ndarray:
        return np.asarray(batched(clean, masked, *bounds)).reshape(-1, photos)

    def one_at_a_time(solve) -> np.ndarray:
        return np.stack([solve(*pair) for pair in pairs[: FLAGS.peer_problems]])

    made = {OURS: ours, PUBLISHED: partial(one_at_a_time, published)}
    if "OSQP" in cvxpy.installed_solvers():
        made[PARAMETERS] = partial(one_at_a_time, with_parameters(photos))
    made[EXACT] = partial(one_at_a_time, exactly)
    for program in made.values():  # compiles, imports
        program()
    return made


def accuracy(clean: np.ndarray, masked: np.ndarray) -> Callable[[timing.Turn], dict[str, float]]:
    """Columns of a turn: solves a second, and relative errors against the exact solutions."""
    photos, dimension = clean.shape[1:]
    hulls, points = np.repeat(clean, photos, 0), masked.reshape(-1, dimension)
    exact = np.stack([exactly(*pair) for pair in zip(hulls, points, strict=True)])
    residual = np.linalg.norm(points - np.einsum("bn,bnd->bd", exact, hulls), axis=1)

    def columns(turn: timing.Turn) -> dict[str, float]:
        count = len(turn.result)
        off = np.einsum("bn,bnd->bd", turn.result - exact[:count], hulls[:count])
        errors = np.linalg.norm(off, axis=1) / residual[:count]
        found = {"solves_per_s": count / turn.wall, "median": np.median(errors)}
        return found | {"p99": np.quantile(errors, 0.99), "worst": errors.max()}

    return columns


def main(argv: list[str]) -> int:
    """Measures, prints the table, writes the CSV; returns the exit code."""
    del argv
    machine = timing.machine("float32")
    clean, masked = draw(FLAGS.people, FLAGS.photos, FLAGS.dimension)
    turns = timing.take_turns(programs(clean, masked), FLAGS.rounds)
    counts = {turn.program: len(turn.result) for turn in turns}
    rows = timing.report(turns, counts, "problem", accuracy(clean, masked))
    about = {"photos": FLAGS.photos, "dimension": FLAGS.dimension, **machine}
    timing.write(FLAGS.out, "simplex", rows, about)
    return int(not max(row["worst"] for row in rows if row["program"] == OURS) <= LIMIT)


if __name__ == "__main__":
    app.run(main)
