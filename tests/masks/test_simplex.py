"""The simplex QP: optimality on every lane, against exact solutions and stored ones."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax.masks.simplex import Bounds, project, simplex_least_squares
from opom_jax.networks.recognizer import normalize

solve_batch = jax.jit(jax.vmap(simplex_least_squares, (0, 0, None, None)))
project_batch = jax.jit(jax.vmap(project))


LANES = 2_000  # solved in one call, so that one program does for all tests with as many columns


def solve(columns, targets, lower=0.0, upper=1.0):
    """Coefficients f64[B,N]; bounds are numbers or f32[N]."""
    n, count = columns.shape[1], len(targets)
    lower, upper = (np.broadcast_to(np.float32(bound), n) for bound in (lower, upper))
    rows = np.resize(np.arange(count), -(-count // LANES) * LANES)
    found = [
        solve_batch(columns[some], targets[some], lower, upper) for some in rows.reshape(-1, LANES)
    ]
    return np.concatenate(found)[:count].astype(np.float64)


def unit(array):
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def residual(columns, targets, a):
    return np.linalg.norm(
        targets.astype(np.float64) - np.einsum("bn,bnd->bd", a, columns.astype(np.float64)), axis=1
    )


def gap(columns, targets, a, lower=0.0, upper=1.0):
    """Upper bound of |r|^2 / 2 minus its optimum: the Frank-Wolfe gap, by a greedy vertex."""
    columns, targets = columns.astype(np.float64), targets.astype(np.float64)
    r = targets - np.einsum("bn,bnd->bd", a, columns)
    gradient = -np.einsum("bnd,bd->bn", columns, r)
    vertex = np.full(gradient.shape, lower)
    left = 1 - vertex.sum(1)
    for column in np.argsort(gradient, 1).T:
        rows = np.arange(len(vertex))
        added = np.minimum(left, upper - lower)
        vertex[rows, column] += added
        left -= added
    return np.einsum("bn,bn->b", gradient, a - vertex)


def exact_residual(columns, targets):
    """Smallest residual over the simplex by trying every support, float64."""
    columns, targets = columns.astype(np.float64), targets.astype(np.float64)
    b, n, _ = columns.shape
    gram = np.einsum("bnd,bmd->bnm", columns, columns)
    linear = np.einsum("bnd,bd->bn", columns, targets)
    best = np.full(b, np.inf)
    for size in range(1, n + 1):
        for support in combinations(range(n), size):
            s = list(support)
            kkt = np.zeros((b, size + 1, size + 1))
            kkt[:, :size, :size] = gram[:, s][:, :, s] + 1e-13 * np.eye(size)
            kkt[:, :size, size] = kkt[:, size, :size] = 1
            right = np.append(linear[:, s], np.ones((b, 1)), 1)
            part = np.linalg.solve(kkt, right[..., None])[:, :size, 0]
            a = np.zeros((b, n))
            a[:, s] = part
            feasible = (part >= -1e-10).all(1)
            best = np.where(feasible, np.minimum(best, residual(columns, targets, a)), best)
    return best


def problems(kind, n, count, rng):
    """Columns f32[count,n,D] and targets f32[count,D] of one kind."""
    common = unit(rng.standard_normal((count, 1, 512)))
    spread = {"similar": 0.1, "almost equal": 1e-3}.get(kind, 0.8)
    columns = unit(common + spread * unit(rng.standard_normal((count, n, 512))))
    if kind in ("duplicated", "nearly duplicated") and n > 1:
        columns[:, n // 2 :] = columns[:, : n - n // 2]
        if kind == "nearly duplicated":
            columns[:, n // 2 :] += 1e-4 * rng.standard_normal(columns[:, n // 2 :].shape)
    if kind == "low rank":
        columns[..., 5:] = 0
        columns = unit(columns)
    noise = unit(rng.standard_normal((count, 512)))
    near = columns[:, 0] if kind == "near a vertex" else columns.mean(1)
    amount = {"near a vertex": 0.2, "far": 5.0}.get(kind, 0.4)
    return columns, unit(near + amount * noise)


KINDS = ("random", "near a vertex", "far", "similar", "almost equal", "duplicated")
KINDS += ("nearly duplicated", "low rank")


@pytest.mark.parametrize("n", [1, 2, 10, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_every_lane_is_optimal_and_feasible(kind, n):
    columns, targets = problems(kind, n, 10_000 if n == 10 else 2_000, np.random.default_rng(n))
    a = solve(columns, targets)
    assert np.abs(a.sum(1) - 1).max() < 1e-6
    assert a.min() > -1e-6
    squared = residual(columns, targets, a) ** 2
    excess = gap(columns, targets, a) / squared  # at least the residual's relative error
    loose = excess > 1e-5
    if loose.any():  # the bound is not tight for nearly equal columns: decide those exactly
        hard = np.flatnonzero(loose)[:50]
        best = exact_residual(columns[hard], targets[hard]) if n <= 10 else None
        if best is None:
            pytest.fail(f"{loose.sum()} lanes of {n} columns may be off by {excess.max():.1e}")
        assert (residual(columns[hard], targets[hard], a[hard]) / best - 1).max() < 1e-5


@pytest.mark.parametrize("kind", ["near a vertex", "nearly duplicated", "low rank", "random"])
def test_residual_equals_the_exact_one(kind):
    columns, targets = problems(kind, 8, 200, np.random.default_rng(1))
    ours = residual(columns, targets, solve(columns, targets))
    np.testing.assert_allclose(ours, exact_residual(columns, targets), rtol=1e-5)


def test_jaxopts_own_stopping_rule_would_leave_lanes_wrong():
    """Why there is a loop of ours: on the same problems a tolerance of 0 ends at wrong vertices."""
    import jaxopt

    from opom_jax.masks.simplex import _value_and_gradient

    columns, targets = problems("near a vertex", 10, 500, np.random.default_rng(2))
    solver = jaxopt.ProjectedGradient(
        _value_and_gradient, project, value_and_grad=True, stepsize=0.1, maxiter=300, tol=0.0
    )
    box = Bounds(jnp.zeros(10), jnp.ones(10), jnp.array(1.0))

    @jax.jit
    @jax.vmap
    def run(c, y):
        return solver.run(jnp.full(10, 0.1), box, c @ c.T, c @ y).params

    theirs = residual(columns, targets, np.asarray(run(columns, targets), np.float64))
    ours = residual(columns, targets, solve(columns, targets))
    assert (theirs / ours - 1 > 1e-3).mean() > 0.01
    assert (ours / theirs - 1).max() < 1e-5


@pytest.mark.parametrize(("lower", "upper"), [(0.05, 0.3), (0.0, 0.25), (0.1, 0.1), (0.02, 1.0)])
def test_reduced_hull_respects_its_box_and_is_optimal(lower, upper):
    columns, targets = problems("near a vertex", 10, 2_000, np.random.default_rng(3))
    a = solve(columns, targets, lower, upper)
    assert a.min() > lower - 1e-6 and a.max() < upper + 1e-6
    assert np.abs(a.sum(1) - 1).max() < 1e-6
    squared = residual(columns, targets, a) ** 2
    assert (gap(columns, targets, a, lower, upper) / squared).max() < 1e-5


def test_columns_with_upper_zero_are_as_if_absent():
    columns, targets = problems("random", 10, 500, np.random.default_rng(4))
    upper = np.array([1] * 6 + [0] * 4, np.float32)
    padded = solve(columns, targets, 0.0, upper)
    alone = solve(columns[:, :6], targets)
    assert (padded[:, 6:] == 0).all()
    np.testing.assert_allclose(padded[:, :6], alone, atol=2e-6)


def test_projection_is_exact_on_boxes_and_against_a_sorted_simplex_projection():
    from jaxopt.projection import projection_simplex

    rng = np.random.default_rng(5)
    points = rng.standard_normal((3_000, 10)).astype(np.float32) * 3
    one = np.ones(3_000, np.float32)
    simplex = Bounds(np.zeros_like(points), np.ones_like(points), one)
    ours = np.asarray(project_batch(points, simplex))
    np.testing.assert_allclose(ours, jax.vmap(projection_simplex)(points), atol=1e-6)
    lower = -rng.uniform(0, 0.2, points.shape).astype(np.float32)
    upper = rng.uniform(0.2, 0.5, points.shape).astype(np.float32)
    a = np.asarray(project_batch(points, Bounds(lower, upper, one)))
    assert np.abs(a.sum(1) - 1).max() < 2e-6
    assert ((a >= lower - 1e-6) & (a <= upper + 1e-6)).all()
    free = (a > lower + 1e-4) & (a < upper - 1e-4)  # KKT: one shift for all free entries
    shifts = np.where(free, points - a, np.nan)
    assert np.nanmax(np.nanmax(shifts, 1) - np.nanmin(shifts, 1)) < 1e-5


def test_stored_solutions_of_the_published_runs(goldens):
    exact = np.load(goldens / "opom_qp_exact.npz")["qp_x_exact_9"]
    run = np.load(goldens / "opom_fim_9_convexhull.npz")
    clean = np.asarray(normalize(run["clean_feat"]))
    masked = np.asarray(normalize(run["adv_feat"]))
    for person in range(3):
        targets = masked[person, 5:].reshape(-1, 512)  # steps 0..4 are the class centre
        columns = np.broadcast_to(clean[person], (len(targets), 10, 512))
        a, best = solve(columns, targets), exact[person, 5:].reshape(-1, 10)
        assert np.abs(a - best).max() < 1e-3
        worst = residual(columns, targets, a) / residual(columns, targets, best) - 1
        assert worst.max() < 1e-5


@pytest.mark.parametrize(
    ("name", "lower", "upper"),
    [("convexhull_9", 0.0, 1.0), ("reducedhull_9_005_030", 0.05, 0.3), ("classcenter_7", 0.1, 0.1)],
)
def test_stored_rich_hulls(goldens, name, lower, upper):
    stored = np.load(goldens / "opom_lossfunctions.npz")
    targets = np.asarray(normalize(stored["fea1"]))
    columns = np.broadcast_to(np.asarray(normalize(stored["fea2"])), (10, 10, 512))
    a, best = solve(columns, targets, lower, upper), stored[f"{name}_x_exact"]
    assert np.abs(a - best).max() < 1e-3
    worst = residual(columns, targets, a) / residual(columns, targets, best) - 1
    assert np.abs(worst).max() < 1e-5
