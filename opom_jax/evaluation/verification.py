"""1:1 verification: do two photos show one person? ROC and TAR at FAR (Fig. 4's similarities).

A pair counts as one person where its cosine similarity reaches a threshold. TAR is the share of
pairs of one person that do, FAR that of pairs of two people.
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
    same, other = np.sort(same), np.sort(other)
    threshold = np.concatenate([[np.inf], np.unique(np.concatenate([same, other]))[::-1]])
    accepted = [(len(of) - np.searchsorted(of, threshold)) / len(of) for of in (other, same)]
    return Roc(threshold.astype(np.float64), *accepted)


def tar_at(curve: Roc, rates: Sequence[float] = RATES) -> np.ndarray:
    """f64: the highest TAR at which FAR is at most each of the rates (0..1)."""
    return np.array([curve.tar[curve.far <= rate].max() for rate in rates])


def area(curve: Roc) -> float:
    """The area under TAR over FAR: how often a random pair of one person is the more alike, ties
    counting one half; in 0..1."""
    return float(np.trapezoid(curve.tar, curve.far))
