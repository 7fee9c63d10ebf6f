"""The simplex-constrained least squares of OPOM (Eq. 9 and 12), batched, with fixed work a solve.

    min_a |F a - y|^2   subject to   sum a = 1,  lower <= a <= upper

jaxopt's accelerated projected gradient runs on the N x N Gram matrix, with three changes.

* jaxopt's stopping rule is not used: on about 6 % of problems the momentum clips two iterates onto
  one vertex, their difference is exactly 0, and the loop would end there, wrong, for every
  tolerance. The number of iterations is fixed instead (a vmapped while loop would wait for its
  slowest lane anyway), and the momentum is dropped whenever it points uphill (gradient restart,
  O'Donoghue and Candes 2015), which converges much faster.
* The points are centred first. Coefficients sum to 1, so this changes nothing but the condition
  number, which for faces of one person is otherwise ruled by their common direction.
* A few rounds solve for the residual that remains, y - F a taken in the D-dimensional space, each
  ended by Newton steps on the face that was found: neither the Gram matrix's rounding nor nearly
  equal photos limit the accuracy. On random, low-rank, nearly equal and duplicated photos the
  residual is within 1e-6 of exact on every lane (tests/masks/test_simplex.py).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxopt

ROUNDS = 6
ITERATIONS = 16  # of projected gradient in a round
NEWTON = 3  # Newton steps that end a round, each as far as the bounds allow
TOLERANCE = 1e-6  # a coefficient nearer to a bound than this share of its range is at the bound
RIDGE = 1e-7  # keeps the Newton step defined where photos are equal


class Bounds(NamedTuple):
    """The feasible set {a : sum a = total, lower <= a <= upper}.

    Attributes:
      lower: f32[N].
      upper: f32[N], >= lower.
      total: f32[], with sum lower <= total <= sum upper.
    """

    lower: jax.Array
    upper: jax.Array
    total: jax.Array


def project(point: jax.Array, bounds: Bounds) -> jax.Array:
    """Euclidean projection of f32[N] onto `bounds`, exact and without sorting.

    The projection is clip(point - t, lower, upper) for the t at which the sum is `total`. The sum
    falls piecewise linearly in t with knots at point - lower and point - upper: evaluating it at
    all 2N knots brackets t, and one interpolation finishes it. O(N^2) work that fuses.

    Args:
      point: f32[N], finite.
      bounds: f32[N], f32[N], f32[].

    Returns:
      f32[N] with the sum `total`, up to rounding.

    Example:
      >>> box = Bounds(jnp.zeros(3), jnp.ones(3), jnp.array(1.0))
      >>> project(jnp.array([0.9, 0.5, -1.0]), box).round(6).tolist()
      [0.699999988079071, 0.30000001192092896, 0.0]
    """
    knots = jnp.concatenate([point - bounds.upper, point - bounds.lower])
    moved = point[None] - knots[:, None]
    sums = jnp.clip(moved, bounds.lower[None], bounds.upper[None]).sum(1)
    left = jnp.max(jnp.where(sums >= bounds.total, knots, knots.min()))
    right = jnp.min(jnp.where(sums <= bounds.total, knots, knots.max()))
    middle = (left + right) / 2
    # between two knots the free entries are those whose own knots enclose the interval
    free = (point - bounds.upper < middle) & (middle < point - bounds.lower)
    rest = jnp.where(middle >= point - bounds.lower, bounds.lower, bounds.upper)
    needed = bounds.total - jnp.sum(jnp.where(free, 0.0, rest))
    count = free.sum()
    shift = (jnp.sum(jnp.where(free, point, 0.0)) - needed) / jnp.maximum(count, 1)
    shift = jnp.where(count > 0, shift, middle)
    return jnp.clip(point - shift, bounds.lower, bounds.upper)


def _value_and_gradient(a, gram, linear):
    return jnp.zeros((), a.dtype), gram @ a - linear


_SOLVER = jaxopt.ProjectedGradient(
    _value_and_gradient,
    project,
    value_and_grad=True,
    stepsize=1.0,
    acceleration=True,
    implicit_diff=False,
    jit=False,
)


def _minimise(gram: jax.Array, linear: jax.Array, start: jax.Array, bounds: Bounds) -> jax.Array:
    """argmin 1/2 a'Ga - b'a over `bounds`, G scaled so that a unit step is safe."""

    def iterate(_, carry):
        a, state = carry
        extrapolated = state.velocity
        next_a, state = _SOLVER.update(a, state, bounds, gram, linear)
        uphill = jnp.vdot(extrapolated - next_a, next_a - a) > 0
        state = state._replace(
            velocity=jnp.where(uphill, next_a, state.velocity),
            t=jnp.where(uphill, 1.0, state.t),
        )
        return next_a, state

    state = _SOLVER.init_state(start, bounds, gram, linear)
    a, _ = jax.lax.fori_loop(0, ITERATIONS, iterate, (start, state))
    newton = lambda _, a: _newton_on_face(gram, linear, a, bounds)  # noqa: E731
    return jax.lax.fori_loop(0, NEWTON, newton, a)


def _newton_on_face(gram: jax.Array, linear: jax.Array, a: jax.Array, bounds: Bounds) -> jax.Array:
    """One Newton step over the coefficients that are at no bound, as far as the bounds allow."""
    slack = TOLERANCE * (bounds.upper - bounds.lower)
    free = (a > bounds.lower + slack) & (a < bounds.upper - slack)
    mask = free.astype(a.dtype)
    kkt = jnp.block(
        [
            [gram * jnp.outer(mask, mask) + jnp.diag(1 - mask + RIDGE), mask[:, None]],
            [mask[None], jnp.where(free.any(), 0.0, 1.0)[None, None]],
        ]
    )
    negative_gradient = jnp.append(mask * (linear - gram @ a), 0.0)
    step = mask * jnp.linalg.solve(kkt, negative_gradient)[:-1]
    room = jnp.where(step > 0, bounds.upper - a, bounds.lower - a)
    length = jnp.min(jnp.where(step != 0, room / step, 1.0), initial=1.0)
    return a + jnp.where(jnp.isfinite(step).all(), jnp.maximum(length, 0.0) * step, 0.0)


def simplex_least_squares(
    columns: jax.Array, target: jax.Array, lower: jax.Array, upper: jax.Array
) -> jax.Array:
    """Coefficients of the point of a (reduced) convex hull that is nearest to a target.

    Args:
      columns: f32[N,D], the points that span the hull (F', one a row).
      target: f32[D], y.
      lower: f32[N], smallest coefficient of each point; 0 for the convex hull.
      upper: f32[N], largest coefficient; 1 for the convex hull, 0 removes a point.

    Returns:
      f32[N] with sum 1 and lower <= a <= upper up to rounding. Feasible bounds
      (sum lower <= 1 <= sum upper) are the caller's to ensure.

    Example:
      >>> corners = jnp.eye(3)
      >>> target = jnp.array([1.0, 1.0, -5.0])
      >>> simplex_least_squares(corners, target, jnp.zeros(3), jnp.ones(3)).round(5).tolist()
      [0.5, 0.5, 0.0]
    """
    zero, span = jnp.zeros_like(lower), upper - lower
    a = lower + span * (1.0 - lower.sum()) / jnp.maximum(span.sum(), jnp.finfo(span.dtype).tiny)
    inside = (upper > lower)[:, None]
    centre = jnp.sum(jnp.where(inside, columns, 0.0), 0) / jnp.maximum(inside.sum(), 1)
    edges = jnp.where(inside, columns - centre[None], 0.0)
    gram = edges @ edges.T
    scale = jnp.maximum(jnp.abs(gram).sum(1).max(), jnp.finfo(gram.dtype).tiny)

    def refine(_, a):
        remaining = edges @ (target - a @ columns)
        shifted = Bounds(lower - a, upper - a, 1.0 - a.sum())
        return a + _minimise(gram / scale, remaining / scale, zero, shifted)

    a = jax.lax.fori_loop(0, ROUNDS, refine, a)
    return project(a, Bounds(lower, upper, jnp.ones((), lower.dtype)))
