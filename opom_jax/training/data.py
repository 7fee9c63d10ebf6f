"""From photos to batches: shuffled, augmented and read ahead by grain.

grain's datasets are functions of the position: batch k is the same whether or not the batches
before it were asked for, so that a run resumes at any step. Axis: `B` batch.
"""

from collections.abc import Iterator

import grain
import numpy as np

from opom_jax.training.augment import augment
from opom_jax.training.sources import Source

THREADS, AHEAD = 4, 8  # decode and augment; batches kept ready

Batch = tuple[np.ndarray, np.ndarray]  # u8[B,H,W,3], i32[B]


def batches(
    source: Source, size: int, seed: int, strength: float, start: int, stop: int
) -> Iterator[Batch]:
    """Training batches `start` to `stop - 1`, prepared in threads ahead of their use.

    The photos come in another random order each time round; batches go on over its end. Order and
    augmentation depend on the seed and the position alone.

    Args:
      source: photos.
      size: B.
      seed: of order and augmentation, in [0, 2**32).
      strength: of `augment`.

    Raises:
      InputError: a photo that can no longer be read.
    """
    dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    dataset = dataset.random_map(lambda item, rng: (augment(item[0], rng, strength), item[1]))
    return _ahead(dataset.batch(size)[start:stop])


def in_order(source: Source, size: int) -> Iterator[Batch]:
    """All photos of a source once as they are, the last batch shorter."""
    return _ahead(grain.MapDataset.source(source).batch(size))


def _ahead(dataset) -> Iterator[Batch]:
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    return iter(dataset.to_iter_dataset(options))
