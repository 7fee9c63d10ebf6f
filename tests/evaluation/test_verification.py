"""ROC against counting, in the closed forms that small samples have."""

import numpy as np
import pytest

from opom_jax.evaluation.verification import (
    area,
    roc,
    similarities,
    threshold_at,
    verification,
)


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


def test_area_is_the_chance_of_being_more_alike(pairs):
    same, other = pairs
    wins = (same[:, None] > other).mean() + 0.5 * (same[:, None] == other).mean()
    assert area(roc(same, other)) == pytest.approx(wins)
    assert area(roc(np.ones(3), np.zeros(2))) == 1


RATES_TRIED = (0.0, 0.0005, 0.001, 0.01, 0.1, 0.5, 1.0)


def test_thresholds_let_as_many_strangers_pass_as_allowed_and_no_more(pairs):
    same, other = pairs
    thresholds = threshold_at(other, RATES_TRIED)
    found = verification(same, other, thresholds)
    assert (found.far <= RATES_TRIED).all()
    for rate, threshold in zip(RATES_TRIED, thresholds, strict=True):
        assert rate == 1 or np.mean(other >= np.nextafter(threshold, -np.inf)) > rate
    for rate, tar in zip(RATES_TRIED, found.tar, strict=True):
        allowed = [t for t in [*same, *other, np.inf] if np.mean(other >= t) <= rate]
        assert tar == max(np.mean(same >= t) for t in allowed)
    means = found.genuine, found.impostor, found.auc
    assert means == pytest.approx([same.mean(), other.mean(), area(roc(same, other))])


def test_a_threshold_does_not_depend_on_pairs_of_one_person():
    """Masks may put a person just above the strangers, where no pair without masks is."""
    (threshold,) = threshold_at(np.array([0.1, 0.3], np.float32), [0.5])
    found = verification(np.array([0.2, 0.05]), np.array([0.1, 0.3]), np.array([threshold]))
    assert found.tar == [0.5] and found.far == [0.5]


def test_similarities_are_cosines_in_float64():
    one, two = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    wanted = [np.dot(a, b) for a, b in zip(one.astype(float), two.astype(float), strict=True)]
    found = similarities(one, two)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, rtol=1e-14)
