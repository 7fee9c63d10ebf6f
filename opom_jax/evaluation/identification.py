"""The 1:N protocol of the paper (4.1): can a masked probe still find its person?

Every masked probe i is compared with a gallery of ONE clean photo j != i of the same person and all
distractors, for every j. Its rank is the number of distractors more similar than the target (the
target wins ties). Top-k protection is the share of such tests with rank >= k.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TOP = (1, 5, 10)
LANES = 8  # at least as many partial sums make a product on every device
# At most so many rows at once, distractors on each device: their products stay in a cache.
_PROBES, _DISTRACTORS = 4096, 2048
_FEW = 256  # rows that are decided in float64 together


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


def ranks(
    probes: np.ndarray, gallery: np.ndarray, photos: Sequence[int], distractors: np.ndarray
) -> Ranks:
    """Ranks of every probe against every other photo of its person.

    Args:
      probes: f32[B,D] unit features of the (masked) probes, a person's photos consecutive.
      gallery: f32[B,D] unit features of the same photos, clean.
      photos: number of photos of each person, at least 2 each, B in all.
      distractors: f32[G,D] unit features, of which only slices of rows are read, one after the
        other (np.memmap, say): memory does not grow with G.

    Returns:
      The ranks of the sum over people of n (n - 1) tests.
    """
    counts = np.asarray(photos)
    first = np.repeat(np.cumsum(counts) - counts, counts)[:, None]
    column = np.arange(counts.max() - 1)
    real = column < np.repeat(counts, counts)[:, None] - 1
    others = first + column + (first + column >= np.arange(len(probes))[:, None])
    others[~real] = 0
    parts = _parts(len(probes), _FEW)
    wanted = np.concatenate([_products(probes[p, None], gallery[others[p]]) for p in parts])
    wanted[~real] = np.inf  # which nothing exceeds, so that no work is spent on them
    found = _closer(np.asarray(probes, np.float32), wanted, distractors)
    return Ranks(found[real], np.repeat(np.arange(len(counts)), counts * (counts - 1)))


def _closer(probes: np.ndarray, wanted: np.ndarray, distractors: np.ndarray) -> np.ndarray:
    """i64[B,M]: how many distractors are more similar to probes f32[B,D] than wanted f64[B,M].

    The devices count those that are surely so and those that may be; where the numbers differ, the
    distractors between are decided in float64.
    """
    found, unsure = np.zeros(wanted.shape, np.int64), _rounding(probes.shape[1])
    edges = np.stack([wanted + unsure, wanted - unsure], 1).astype(np.float32)
    for rows, block, similar, exceed in _ahead(_compared(probes, edges, distractors)):
        sure, perhaps = (np.asarray(number)[: len(found[rows])] for number in exceed)
        found[rows] += sure
        for i, m, g in _unsure(similar, edges[rows], sure != perhaps):
            who = rows.start + i
            np.add.at(found, (who, m), _products(probes[who], block[g]) > wanted[who, m])
    return found


def _rounding(dimension: int) -> float:
    """The most by which a float32 product of unit vectors is off: half a unit in the last place for
    every term of a partial sum, and for the sums of these and the edges."""
    return 2.0**-24 * (dimension / LANES + 2 * LANES)


def _ahead(made: Iterator[tuple]) -> Iterator[tuple]:
    """The same, each when the next has been asked of the devices: they work while the host does."""
    held = list(islice(made, 1))
    for one in made:
        yield held.pop()
        held.append(one)
    yield from held


def _unsure(similar: jax.Array, edges: np.ndarray, tests: np.ndarray) -> Iterator[tuple]:
    """Probe, target and distractor, i64[K] each, of similarities f32[B,G] between the edges
    f32[B,2,M] of the tests bool[B,M]; few at once, as many may be."""
    chosen = np.argwhere(tests)
    for part in _parts(len(chosen), _FEW):
        i, m = chosen[part].T
        asked = _padded(i, _FEW, 0), _padded(edges[i, :, m], _FEW, np.inf)
        test, g = np.nonzero(np.asarray(_between(similar, *asked)))
        for few in _parts(len(g), _FEW):
            yield i[test[few]], m[test[few]], g[few]


def _products(probes: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """f64[...] of f32[...,D]; equal photos tie, as every product is summed in the same order."""
    return (photos * probes.astype(np.float64)).sum(-1)


def _compared(probes: np.ndarray, edges: np.ndarray, distractors: np.ndarray) -> Iterator[tuple]:
    """Every block of distractors with every block of probes f32[B,D] and their edges f32[B,2,M].

    A block of distractors is spread over the local devices, each of which compares its share; the
    rows that fill the last one are NaN, which exceeds nothing.

    Yields:
      Rows of the probes, the distractors f32[G,D], and what `_count` makes of both.
    """
    devices = np.array(jax.local_devices())
    mesh = Mesh(devices, ("gallery",))
    spread, whole = (NamedSharding(mesh, PartitionSpec(axis)) for axis in ("gallery", None))
    asked = []
    for rows in _parts(len(probes), _PROBES):
        size = rows.stop - rows.start
        block = _padded(probes[rows], size, 0), _padded(edges[rows], size, np.inf)
        asked.append((rows, jax.device_put(block, whole)))
    for part in _parts(len(distractors), _DISTRACTORS * len(devices), len(devices)):
        block = _padded(np.asarray(distractors[part], np.float32), part.stop - part.start, np.nan)
        shares = jax.device_put(block, spread)
        for rows, of in asked:
            yield rows, block, *_count(*of, shares)


@jax.jit
def _count(probes, edges, distractors):
    """f32[B,G] similarities of probes f32[B,D] and distractors f32[G,D], and how many of a probe's
    exceed each of its edges f32[B,2,M]: two i32[B,M]."""
    similar = jnp.matmul(probes, distractors.T, precision=jax.lax.Precision.HIGHEST)
    exceed = [(similar[:, None] > edges[:, k, :, None]).astype(jnp.int32) for k in (0, 1)]
    # one reduction for both, which XLA fuses with the comparisons; two sums take ten times as long
    add = lambda a, b: [x + y for x, y in zip(a, b, strict=True)]  # noqa: E731
    return similar, jax.lax.reduce(exceed, [jnp.int32(0)] * 2, add, (2,))


@jax.jit
def _between(similar, rows, edges):
    """bool[K,G]: which of the rows i64[K] of f32[B,G] lie between the edges f32[K,2] of each."""
    few = similar[rows]
    return (few > edges[:, 1:]) & ~(few > edges[:, :1])


def _parts(count: int, most: int, multiple: int = 1) -> list[slice]:
    """Slices of one length, at most `most`, which cover `count` rows; the last may go beyond."""
    if not count:
        return []
    size = -(-count // (-(-count // most) * multiple)) * multiple
    return [slice(start, start + size) for start in range(0, count, size)]


def _padded(rows: np.ndarray, size: int, value: float) -> np.ndarray:
    """The rows, then rows of `value` up to `size`."""
    rest = np.full((size - len(rows), *rows.shape[1:]), value, rows.dtype)
    return np.concatenate([rows, rest])
