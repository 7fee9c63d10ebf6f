"""Are two photos of one person? How well cosines of embeddings answer, on people never trained on.

Axes: `N` photos, `D` embedding.
"""

from typing import NamedTuple

import numpy as np

PAIRS = 2**21
_CHUNK = 2**15


class Verification(NamedTuple):
    """How far pairs of one person and pairs of two are apart.

    Attributes:
      accuracy: share in [0.5, 1] of right answers at the best threshold, both kinds of pairs
        counting one half. The threshold is chosen on the same pairs.
      same: mean cosine of pairs of one person.
      other: mean cosine of pairs of two people.
    """

    accuracy: float
    same: float
    other: float


def verification(features: np.ndarray, labels: np.ndarray, pairs: int = PAIRS) -> Verification:
    """All pairs of photos, or a fixed random half each of both kinds if there are too many.

    Args:
      features: f32[N,D] of length 1.
      labels: i32[N], at least two people, one of them with two photos.
      pairs: the most that are compared; memory grows with it.
    """
    count = len(labels)
    if count * (count - 1) // 2 <= pairs:
        above = np.triu_indices(count, 1)
        cosines = (features @ features.T)[above]
        alike = (labels[:, None] == labels[None])[above]
        same, other = cosines[alike], cosines[~alike]
    else:
        rng = np.random.default_rng(0)
        same = _cosines(features, *_same_pairs(labels, pairs // 2, rng))
        other = _cosines(features, *_other_pairs(labels, pairs // 2, rng))
    return Verification(_accuracy(same, other), float(same.mean()), float(other.mean()))


def _same_pairs(labels: np.ndarray, count: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs of two photos of one person; every photo that has a partner is as likely."""
    order = np.argsort(labels, kind="stable")
    _, first, photos = np.unique(labels[order], return_index=True, return_counts=True)
    first, photos = np.repeat(first, photos), np.repeat(photos, photos)
    one = rng.choice(np.flatnonzero(photos > 1), count)
    step = rng.integers(1, photos[one])
    two = first[one] + (one - first[one] + step) % photos[one]
    return order[one], order[two]


def _other_pairs(labels: np.ndarray, count: int, rng) -> tuple[np.ndarray, np.ndarray]:
    one, two = rng.integers(0, len(labels), (2, count))
    different = labels[one] != labels[two]
    return one[different], two[different]


def _cosines(features: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    parts = [
        np.einsum("nd,nd->n", features[one[k : k + _CHUNK]], features[two[k : k + _CHUNK]])
        for k in range(0, len(one), _CHUNK)
    ]
    return np.concatenate(parts)


def _accuracy(same: np.ndarray, other: np.ndarray) -> float:
    same, other = np.sort(same), np.sort(other)
    thresholds = np.concatenate([same, other, [np.inf]])  # a pair at the threshold is one person
    found = 1 - np.searchsorted(same, thresholds) / len(same)
    kept_apart = np.searchsorted(other, thresholds) / len(other)
    return float(((found + kept_apart) / 2).max())
