"""The exact active set fulfils the conditions of optimality."""

import numpy as np
import pytest

from benchmarks import exact_simplex


@pytest.mark.parametrize("twins", [False, True])
@pytest.mark.parametrize("spread", [0.01, 0.8, 3.0])
def test_optimal(spread, twins):
    rng = np.random.default_rng(0)
    for _ in range(20):
        columns = 1 + spread * rng.standard_normal((10, 32))
        if twins:
            columns[5:] = columns[:5]
        target = rng.dirichlet(np.ones(10)) @ columns + 0.3 * spread * rng.standard_normal(32)
        a = exact_simplex.solve(columns, target)
        assert a.min() >= 0 and abs(a.sum() - 1) < 1e-9
        gradient = columns @ (a @ columns - target)
        size = np.abs(columns).max() ** 2
        assert gradient[a > 0].max() - gradient.min() < 1e-9 * size  # no point is better


def test_a_corner_and_the_middle():
    corners = np.eye(3)
    np.testing.assert_allclose(exact_simplex.solve(corners, np.array([5.0, 0, 0])), [1, 0, 0])
    np.testing.assert_allclose(exact_simplex.solve(corners, np.full(3, -2.0)), np.full(3, 1 / 3))
