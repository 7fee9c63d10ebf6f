"""Photos on their way to a network: as they are, or under the masks of a run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from opom_jax.cli.config import Config
from opom_jax.data import images
from opom_jax.evaluation.features import batches
from opom_jax.masks.apply import apply_mask
from opom_jax.masks.store import read_mask


def pixels(paths: Sequence[Path], data: Config) -> Iterator[np.ndarray]:
    """Batches u8[b,H,W,3], 1 <= b <= BATCH, in order; `data` is that of the configuration."""
    return images.read_batches(batches(paths), data.image_size, data.resize)


def under_masks(
    paths: Sequence[Path], masks: Sequence[Path], config: Config
) -> Iterator[np.ndarray]:
    """The same with masks: photo i has the one in the file masks[i].

    Raises:
      InputError: a mask that is missing or damaged, see `read_mask`.
    """
    start, size = 0, config.data.image_size
    for batch in pixels(paths, config.data):
        own = masks[start : start + len(batch)]
        read = {path: read_mask(path, size) for path in set(own)}
        yield apply_mask(batch, np.stack([read[path] for path in own]), config.rounding)
        start += len(batch)
