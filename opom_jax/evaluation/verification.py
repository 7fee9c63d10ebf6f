"""1:1 verification: do two photos show one person? ROC and TAR at FAR (Fig. 4's similarities).

A pair counts as one person where its cosine similarity reaches a threshold. TAR is the share of
pairs of one person that do, FAR that of pairs of two people.

A system that is in use fixed its threshold on photos without masks, and so does `verification`:
masks can only change who reaches it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RATES = (1e-3, 1e-2, 1e-1)


class Roc(NamedTuple):
    """Every point that a threshold can reach, from the strictest, K of them.

    Attributes:
      threshold: f64[K], falling; infinity first, at which no pair is taken for one person.
      far: f64[K] in 0..1, rising.
      tar: f64[K] in 0..1, rising.
    """

    threshold: np.ndarray
    far: np.ndarray
    tar: np.ndarray


def roc(same: np.ndarray, other: np.ndarray) -> Roc:
    """The curve of similarities of pairs of one person f[S] and of two people f[O], S, O >= 1."""
    threshold = np.concatenate([[np.inf], np.unique(np.concatenate([same, other]))[::-1]])
    return Roc(threshold.astype(np.float64), reached(other, threshold), reached(same, threshold))


def reached(similarities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """f64[R] in 0..1: the share of similarities f[K], K >= 1, that reach each threshold f64[R]."""
    below = np.searchsorted(np.sort(similarities), thresholds)
    return (len(similarities) - below) / len(similarities)


def area(curve: Roc) -> float:
    """The area under TAR over FAR: how often a random pair of one person is the more alike, ties
    counting one half; in 0..1."""
    return float(np.trapezoid(curve.tar, curve.far))


def threshold_at(other: np.ndarray, rates: Sequence[float] = RATES) -> np.ndarray:
    """f64: the lowest thresholds that at most each of the rates (0..1) of pairs of two people
    f[O], O >= 1, reach; none of them does where the rate is below 1 / O."""
    falling = np.append(np.sort(other)[::-1].astype(np.float64), -np.inf)
    allowed = np.searchsorted(np.arange(len(other) + 1) / len(other), rates, "right") - 1
    return np.nextafter(falling[allowed], np.inf)


class Verification(NamedTuple):
    """How one kind of pairs fares at thresholds that were fixed before.

    Attributes:
      genuine, impostor: mean similarity of pairs of one person and of two people, in -1..1.
      tar, far: f64[R] in 0..1, of them that reach each threshold.
      auc: area under the curve of these pairs, in 0..1.
    """

    genuine: float
    impostor: float
    tar: np.ndarray
    far: np.ndarray
    auc: float


def verification(same: np.ndarray, other: np.ndarray, thresholds: np.ndarray) -> Verification:
    """Of similarities of pairs of one person f[S] and of two people f[O], S, O >= 1, and
    thresholds f64[R]."""
    means = float(same.mean()), float(other.mean())
    rates = reached(same, thresholds), reached(other, thresholds)
    return Verification(*means, *rates, area(roc(same, other)))


def similarities(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """f64[K]: cosine similarities of unit features f[K,D] and f[K,D], row by row."""
    return np.einsum("kd,kd->k", one, two, dtype=np.float64)
