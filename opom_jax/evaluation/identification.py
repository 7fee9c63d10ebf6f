"""The 1:N protocol of the paper (4.1): can a masked probe still find its person?

Every masked probe i is compared with a gallery of ONE clean photo j != i of the same person and all
distractors, for every j. Its rank is the number of distractors more similar than the target (the
target wins ties). Top-k protection is the share of such tests with rank >= k.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TOP = (1, 5, 10)
UNSURE = 1e-6  # products of float32 unit vectors are surer than this; the rest is redone in float64
_BLOCK = 256


class Ranks(NamedTuple):
    """Ranks of all tests in the order person, probe i, target j.

    Attributes:
      rank: i64[tests], 0 for the best.
      person: i64[tests], number of the person from 0.
    """

    rank: np.ndarray
    person: np.ndarray

    def protection(self) -> np.ndarray:
        """f64[3]: percent of the tests in which the person is not among the first 1, 5, 10."""
        return 100.0 * np.array([np.mean(self.rank >= k) for k in TOP])

    def per_person(self) -> np.ndarray:
        """i64[P,4]: tests of each person, and how many identify them at 1, 5, 10."""
        people = int(self.person.max()) + 1
        found = [np.bincount(self.person, self.rank < k, people) for k in TOP]
        return np.stack([np.bincount(self.person, minlength=people), *found], 1).astype(np.int64)


def pooled(found: Iterable[Ranks]) -> Ranks:
    """All tests of several, whose mean rates it has if each has as many."""
    return Ranks(*map(np.concatenate, zip(*found, strict=True)))


@jax.jit
def _similarities(probes, targets, distractors):
    """f32[B,G] and f32[B,M] of probes f32[B,D], targets f32[B,M,D], distractors f32[G,D]."""
    highest = jax.lax.Precision.HIGHEST
    others = jnp.matmul(probes, distractors.T, precision=highest)
    return others, jnp.einsum("bd,bmd->bm", probes, targets, precision=highest)


def ranks(
    probes: np.ndarray, gallery: np.ndarray, photos: Sequence[int], distractors: np.ndarray
) -> Ranks:
    """Ranks of every probe against every other photo of its person.

    Args:
      probes: f32[B,D] unit features of the (masked) probes, a person's photos consecutive.
      gallery: f32[B,D] unit features of the same photos, clean.
      photos: number of photos of each person, at least 2 each, B in all.
      distractors: f32[G,D] unit features.

    Returns:
      The ranks of the sum over people of n (n - 1) tests.
    """
    counts = np.asarray(photos)
    most = int(counts.max())
    first = np.repeat(np.cumsum(counts) - counts, counts)
    own = np.arange(len(probes))
    others = first[:, None] + np.arange(most)  # every photo of the person, then padding
    real = (np.arange(most) < np.repeat(counts, counts)[:, None]) & (others != own[:, None])
    others = np.minimum(others, len(probes) - 1)
    found = np.empty((len(probes), most), np.int64)
    on_device = jnp.asarray(distractors, jnp.float32)
    for start in range(0, len(probes), _BLOCK):
        block = np.minimum(np.arange(start, start + _BLOCK), len(probes) - 1)
        targets = gallery[others[block]]
        similar, wanted = map(np.asarray, _similarities(probes[block], targets, on_device))
        rows = slice(start, min(start + _BLOCK, len(probes)))
        for m in range(most):
            bar = wanted[:, m, None]
            sure = np.count_nonzero(similar > bar + UNSURE, axis=1)
            close = np.count_nonzero(similar > bar - UNSURE, axis=1) != sure
            for i in np.flatnonzero(close):
                near = np.flatnonzero(np.abs(similar[i] - bar[i]) <= UNSURE)
                sure[i] += _closer(probes[block[i]], targets[i, m], distractors[near])
            found[rows, m] = sure[: rows.stop - start]
    person = np.repeat(np.arange(len(counts)), counts)
    return Ranks(found[real], np.broadcast_to(person[:, None], real.shape)[real])


def _closer(probe: np.ndarray, target: np.ndarray, distractors: np.ndarray) -> int:
    """How many distractors are more similar than the target, in float64; equal photos tie because
    every product is summed in the same order."""
    similar = (np.vstack([target, distractors]) * probe.astype(np.float64)).sum(1)
    return int(np.count_nonzero(similar[1:] > similar[0]))
