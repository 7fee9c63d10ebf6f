"""ROC against counting, in the closed forms that small samples have."""

import numpy as np
import pytest

from opom_jax.evaluation.verification import area, roc, tar_at


@pytest.fixture(scope="module")
def pairs():
    draw = np.random.default_rng(0)
    same, other = draw.normal(0.6, 0.2, 200), draw.normal(0.0, 0.2, 1000)
    return np.round(same, 2), np.round(other, 2)  # with ties


def test_every_point_is_counted(pairs):
    curve = roc(*pairs)
    for threshold, far, tar in zip(*curve, strict=True):
        assert far == pytest.approx(np.mean(pairs[1] >= threshold))
        assert tar == pytest.approx(np.mean(pairs[0] >= threshold))
    assert (curve.far[0], curve.tar[0], curve.far[-1], curve.tar[-1]) == (0, 0, 1, 1)


def test_tar_is_the_best_within_the_far(pairs):
    same, other = pairs
    rates = (0.0, 0.01, 0.1, 1.0)
    for rate, found in zip(rates, tar_at(roc(same, other), rates), strict=True):
        allowed = [t for t in [*same, *other, np.inf] if np.mean(other >= t) <= rate]
        assert found == max(np.mean(same >= t) for t in allowed)


def test_area_is_the_chance_of_being_more_alike(pairs):
    same, other = pairs
    wins = (same[:, None] > other).mean() + 0.5 * (same[:, None] == other).mean()
    assert area(roc(same, other)) == pytest.approx(wins)
    assert area(roc(np.ones(3), np.zeros(2))) == 1
