"""Rates against loops, errors against resampling by hand and in closed form."""

import numpy as np
import pytest

from opom_jax.tables import rates
from opom_jax.tables.rates import above, protection, resampled

STARTS, TARGETS, PEOPLE = 3, 4, 6
ALL = (True,) * TARGETS


def counts(seed: int, starts: int = STARTS, people: int = PEOPLE) -> np.ndarray:
    """i64[S,M,P,4] of people with 2, 6 or 12 tests, all of them found among ten."""
    draw = np.random.default_rng(seed)
    tests = np.array([(k % 3 + 2) * (k % 3 + 1) for k in range(people)])
    first = draw.integers(0, tests + 1, (starts, TARGETS, people))
    fifth = draw.integers(first, tests + 1)
    every = np.broadcast_to(tests, first.shape)
    return np.stack([every, first, fifth, every], -1)


def test_protection_pools_the_tests_of_all_people():
    found = np.array([[2, 0, 1, 2], [6, 3, 3, 6]])
    np.testing.assert_allclose(protection(found), [62.5, 50, 0])
    many = counts(0)
    assert protection(many).shape == (STARTS, TARGETS, 3)
    np.testing.assert_allclose(protection(many)[1, 2], protection(many[1, 2]))


def test_rates_are_means_over_starts_and_the_counted_targets():
    found, counted = counts(1), (True, False, True, True)
    own = rates.rates(found, counted)
    by_hand = np.array([[protection(found[s, m]) for m in range(TARGETS)] for s in range(STARTS)])
    np.testing.assert_allclose(own.top, by_hand.mean(0))
    np.testing.assert_allclose(own.mean, by_hand[:, [0, 2, 3]].mean((0, 1)))
    starts = by_hand[:, [0, 2, 3], 0].mean(1)
    middle = sum(starts) / STARTS
    assert own.spread == pytest.approx((sum((starts - middle) ** 2) / (STARTS - 1)) ** 0.5)
    white = found.copy()
    white[:, 1, :, 1:3] = 0
    changed = rates.rates(white, counted)
    np.testing.assert_array_equal(changed.mean, own.mean)
    assert changed[2:] == own[2:] and changed.top[1, 0] == 100 != own.top[1, 0]


def test_one_start_has_no_spread():
    assert np.isnan(rates.rates(counts(0, starts=1), ALL).spread)


def test_error_is_that_of_people_drawn_anew():
    found, draw = counts(2), np.random.default_rng(0)
    weights = draw.multinomial(PEOPLE, np.full(PEOPLE, 1 / PEOPLE), size=rates.RESAMPLES)
    by_hand = []
    for times in weights:
        drawn = np.repeat(np.arange(PEOPLE), times)
        by_hand.append(
            np.mean(
                [
                    100 - 100 * sum(own[p, 1] for p in drawn) / sum(own[p, 0] for p in drawn)
                    for own in found.reshape(-1, PEOPLE, 4)
                ]
            )
        )
    np.testing.assert_allclose(resampled(found), by_hand)
    assert rates.rates(found, ALL).error == pytest.approx(np.std(by_hand))


def test_error_of_many_people_is_the_standard_error():
    """People of equally many tests: the rate is a mean of independent people."""
    people, tests = 400, 20
    first = np.random.default_rng(3).binomial(tests, 0.3, people)
    one = np.stack([np.full(people, tests), first, first, first], -1)
    found = np.broadcast_to(one, (2, TARGETS, people, 4))
    expected = (100 * first / tests).std() / people**0.5
    assert rates.rates(found, ALL).error == pytest.approx(expected, rel=0.1)


def test_what_is_above_is_paired():
    base, counted = counts(4, starts=1), (True, True, False, True)
    assert above(base, base, counted) == (0, 0)
    assert above(np.concatenate([base, base]), base, counted) == pytest.approx((0, 0), abs=1e-9)
    better = base.copy()
    better[..., 1] = np.maximum(better[..., 1] - 1, 0)
    better[:, 2, :, 1] = base[:, 2, :, 0]  # the white box is not looked at
    apart, error = above(better, base, counted)
    rows = [rates.rates(found, counted) for found in (better, base)]
    assert apart == pytest.approx(rows[0].mean[0] - rows[1].mean[0]) and apart > 0
    assert 0 < error < np.hypot(rows[0].error, rows[1].error)
    assert above(base, better, counted) == pytest.approx((-apart, error))
