"""How far apart a network keeps people: figures of a folder of faces, and of other preprocessings.

Axes: `N` photos, `D` embedding.
"""

from typing import NamedTuple

import numpy as np

from opom_jax.networks.registry import Spec

FAR = 0.01  # share of pairs of two people that pass as one
LEAST_RANK_1, MOST_OTHER = 0.8, 0.3  # beyond these, something is wrong


class Spread(NamedTuple):
    """Cosines of pairs: their mean, and what 5 and 95 % of them are below."""

    mean: float
    low: float
    high: float


class Separation(NamedTuple):
    """What a network makes of photos of known people.

    Attributes:
      people, photos: how many.
      same: of all pairs of photos of one person.
      other: of all pairs of two people.
      rank_1: share of photos most similar to their own person's photo in a gallery of the first
        photo of every person; the first photos themselves are not counted.
      probes: how many photos that is of.
      tar: share of pairs of one person above the cosine that a share `FAR` of other pairs reaches.
      margin: distance of the two means, in standard deviations (d').
    """

    people: int
    photos: int
    same: Spread
    other: Spread
    rank_1: float
    probes: int
    tar: float
    margin: float

    @property
    def suspicious(self) -> bool:
        """Whether a network that recognises faces would hardly give these figures."""
        return not (self.rank_1 >= LEAST_RANK_1 and self.other.mean <= MOST_OTHER)


def separation(features: np.ndarray, labels: np.ndarray) -> Separation:
    """The figures of all pairs; memory grows with N^2.

    Args:
      features: f32[N,D] of length 1.
      labels: i32[N], at least two people, one of them with two photos.
    """
    cosines = features @ features.T
    alike = labels[:, None] == labels
    above = np.triu(np.ones_like(alike), 1)
    same, other = cosines[alike & above], cosines[~alike & above]
    _, first = np.unique(labels, return_index=True)
    probes = np.setdiff1d(np.arange(len(labels)), first)
    found = labels[first[cosines[probes][:, first].argmax(1)]]
    threshold = np.quantile(other, 1 - FAR)
    deviation = np.sqrt((same.var() + other.var()) / 2)
    return Separation(
        people=len(first),
        photos=len(labels),
        same=_spread(same),
        other=_spread(other),
        rank_1=float((found == labels[probes]).mean()),
        probes=len(probes),
        tar=float((same > threshold).mean()),
        margin=float((same.mean() - other.mean()) / max(deviation, 1e-9)),
    )


def _spread(cosines: np.ndarray) -> Spread:
    low, high = np.quantile(cosines, [0.05, 0.95])
    return Spread(float(cosines.mean()), float(low), float(high))


def disguised(images: np.ndarray, spec: Spec, other: Spec) -> np.ndarray:
    """Images that reach the network, after its own preprocessing, as `other` would have prepared
    the given ones: another preprocessing without another compilation.

    Args:
      images: [N,H,W,3] RGB 0..255.
      spec: of the network.
      other: with other channels, mean and scale.

    Returns:
      f32[N,H,W,3], of any range.
    """
    (mean, scale), (own_mean, own_scale) = (
        (np.array(s.mean, np.float32), np.array(s.scale, np.float32)) for s in (other, spec)
    )
    ordered = images[..., ::-1] if other.channels == "BGR" else images
    wanted = (ordered - mean) * (scale / own_scale) + own_mean
    return wanted[..., ::-1] if spec.channels == "BGR" else wanted
