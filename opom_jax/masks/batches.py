"""People in batches of one shape, and the masks that come back."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from opom_jax import parallel

Progress = Callable[[int, int], None]


class Batch(NamedTuple):
    """People who are computed together; arrays of the host, or of the devices.

    Attributes:
      ids: i32[P], number of each person in the list; a seed of what is random.
      photos: u8[P,N,H,W,C] RGB; rows that are padding repeat a photo.
      valid: f32[P,N], 1 for a photo, 0 for padding; at least one photo a person.
    """

    ids: np.ndarray
    photos: np.ndarray
    valid: np.ndarray


def equal_batches(people: Batch, size: int) -> Iterator[tuple[int, Batch]]:
    """Batches on the devices, at most `size` people on each and the same number on all; the last
    repeats its last person. Every device always computes one shape, so that a mask does not depend
    on the number of devices.

    Args:
      people: at least one, on the host.
      size: 1 or more.

    Yields:
      (how many of the batch count, the batch with its arrays on the devices).
    """
    total = len(people.ids)
    size = min(size, total)
    devices = parallel.devices_for(total, size)
    for start in range(0, total, devices * size):
        rows = np.minimum(np.arange(start, start + devices * size), total - 1)
        batch = Batch(*(array[rows] for array in people))
        yield min(devices * size, total - start), parallel.spread(batch, devices)


class Made(NamedTuple):
    """The masks of people.

    Attributes:
      masks: f32[P,H,W,C] in [-epsilon, epsilon]; a universal mask is everybody's.
      metrics: {name: [P,...]}, a row a person.
    """

    masks: np.ndarray
    metrics: dict[str, np.ndarray]

    @classmethod
    def of_everybody(cls, people: int, mask: np.ndarray, metrics: dict[str, np.ndarray]) -> "Made":
        """One mask f32[H,W,C], and the metrics of one run, for every person."""

        def repeated(array) -> np.ndarray:
            return np.broadcast_to(np.asarray(array, np.float32), (people, *np.shape(array)))

        return cls(repeated(mask), {name: repeated(values) for name, values in metrics.items()})
