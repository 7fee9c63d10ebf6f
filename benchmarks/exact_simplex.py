"""The simplex QP solved exactly, one problem at a time, in float64: a finite active set.

Wolfe, Finding the nearest point in a polytope, Mathematical Programming 11, 1976.
"""

import numpy as np

TOLERANCE = 1e-12


def solve(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients of the point of a convex hull that is nearest to a target.

    Args:
      columns: f64[N,D], the points that span the hull.
      target: f64[D].

    Returns:
      f64[N], >= 0, with sum 1.
    """
    edges = columns - target
    gram = edges @ edges.T
    a = np.zeros(len(gram))
    a[np.argmin(np.diag(gram))] = 1.0
    while True:
        slope = gram @ a
        best = int(np.argmin(slope))
        if a[best] > 0 or slope[best] > a @ slope - TOLERANCE * gram[best, best]:
            return a
        a = _to_minimum(gram, a, np.append(np.flatnonzero(a), best))


def _to_minimum(gram: np.ndarray, a: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Down to the minimum over the affine hull of the free points, dropping those in the way."""
    while True:
        wanted = np.linalg.solve(gram[np.ix_(free, free)] + gram.max(), np.ones(len(free)))
        wanted /= wanted.sum()
        if (wanted > 0).all():
            break
        falling = wanted <= 0
        room = a[free][falling] / (a[free][falling] - wanted[falling])
        moved = a[free] + room.min() * (wanted - a[free])
        moved[np.flatnonzero(falling)[room.argmin()]] = 0.0
        a = np.zeros_like(a)
        a[free] = moved
        free = free[moved > 0]
    a = np.zeros_like(a)
    a[free] = wanted
    return a
