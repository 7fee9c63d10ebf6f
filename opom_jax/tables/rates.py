"""Protection rates of counts, and how sure they are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000


class Rates(NamedTuple):
    """Rates of one row of a table, in percent.

    Attributes:
      top: f64[M,3], Top-1, Top-5 and Top-10 protection by target, the mean over random starts.
      mean: f64[3], the mean over the targets that are no white box.
      error: standard error of the mean's Top-1: a bootstrap over people.
      spread: its standard deviation over random starts; NaN of one.
    """

    top: np.ndarray
    mean: np.ndarray
    error: float
    spread: float


def protection(found: np.ndarray) -> np.ndarray:
    """Counts i64[...,P,4] (tests, identified at 1, 5, 10) -> f64[...,3] in percent, all people
    pooled."""
    total = found.sum(-2)
    return 100 - 100 * total[..., 1:] / total[..., :1]


def rates(found: np.ndarray, counted: Sequence[bool]) -> Rates:
    """Rates of counts i64[S,M,P,4] of S random starts and M targets.

    Args:
      found: the counts.
      counted: of each target, whether it counts in the mean.
    """
    chosen = np.asarray(counted)
    by_start = protection(found)[:, chosen].mean(1)[:, 0]
    top = protection(found).mean(0)
    error = float(resampled(found[:, chosen]).std())
    return Rates(top, top[chosen].mean(0), error, spread(by_start))


def spread(values: np.ndarray) -> float:
    """Standard deviation of f64[S] about their own mean (S - 1 below); NaN of one."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def resampled(found: np.ndarray) -> np.ndarray:
    """f64[RESAMPLES]: mean Top-1 protection over starts and targets of counts i64[S,M,P,4], each
    for people drawn anew with replacement. The draw depends on their number only, so two rows on
    the same people are paired."""
    people = found.shape[2]
    weights = np.random.default_rng(0).multinomial(
        people, np.full(people, 1 / people), size=RESAMPLES
    )
    tests, first = (np.einsum("smp,rp->rsm", found[..., k], weights) for k in (0, 1))
    return (100 - 100 * first / tests).mean((1, 2))


def above(found: np.ndarray, base: np.ndarray, counted: Sequence[bool]) -> tuple[float, float]:
    """How far the mean Top-1 of one row is above that of another, and the standard error of that,
    the same people and targets in both: counts i64[S,M,P,4], S may differ."""
    chosen = np.asarray(counted)
    one, two = found[:, chosen], base[:, chosen]
    apart = protection(one).mean((0, 1))[0] - protection(two).mean((0, 1))[0]
    return float(apart), float((resampled(one) - resampled(two)).std())
