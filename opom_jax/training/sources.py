"""Photos to train on and to verify with: folders of people, or people that are rendered.

A source is an array-like: `len(source)` and `source[i] -> (u8[H,W,3], i32 label)`.
Axes: `P` people, `N` photos.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from opom_jax.data import images, people
from opom_jax.errors import InputError

CHUNK = 64  # synthetic people rendered at once

Report = Callable[[int, int], None]


class Source(Protocol):
    """Photos by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]: ...


class FolderSource:
    """Photos in files, decoded when asked for.

    Args:
      people: label k is the k-th of them.
      size, resize: as in `images.read_image`.
    """

    def __init__(self, people: Sequence[people.Person], size: int, resize: bool):
        self.paths = [path for person in people for path in person.probes]
        self.labels = [np.int32(k) for k, person in enumerate(people) for _ in person.probes]
        self.size, self.resize = size, resize

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        return images.read_image(self.paths[index], self.size, self.resize), self.labels[index]


class ArraySource:
    """Photos in memory: u8[N,H,W,3] and i32[N]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        return self.images[index], self.labels[index]


class Data(NamedTuple):
    """What a run trains on.

    Attributes:
      train: labels 0 to people - 1.
      held_out: other people, at least two, two photos each or more.
      people: K, in `train`.
      record: JSON-like, identifies all photos; becomes part of the run's config.json.
    """

    train: Source
    held_out: Source
    people: int
    record: dict


def from_folder(
    folder: str,
    size: int,
    resize: bool,
    min_photos: int,
    held_out: int,
    report: Report | None = None,
) -> Data:
    """A folder with a folder per person, every photo of which is decoded once as a check.

    Args:
      folder: of the sub-folders; the last `held_out` by name are not trained on.
      size, resize: as in `images.read_image`.
      min_photos: every person must have as many, >= 2.
      held_out: people, >= 2.
      report: called with the photos checked and their total.

    Raises:
      InputError: too few people or photos, an unreadable photo.
    """
    found = people.from_folder(folder, 0)
    if len(found) < held_out + 2:
        raise InputError(
            f"{folder!r} has {len(found)} people, needs {held_out + 2}: two to train on and "
            f"config.data.held_out={held_out} to test; add people or lower that."
        )
    for person in found:
        if len(person.probes) < min_photos:
            raise InputError(
                f"{person.name!r} in {folder!r} has {len(person.probes)} photos, fewer than "
                f"config.data.min_photos={min_photos}; add photos, remove the folder or lower that."
            )
    digest = images.inspect([p for one in found for p in one.probes], size, resize, progress=report)
    names = json.dumps([[person.name, len(person.probes)] for person in found])
    record = {
        "people": len(found),
        "held_out": held_out,
        "people_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "photos_sha256": digest,
        "image_size": size,
    }
    train, rest = found[:-held_out], found[-held_out:]
    sources = FolderSource(train, size, resize), FolderSource(rest, size, resize)
    return Data(*sources, len(train), record)


def from_synthetic(
    first: int, count: int, photos: int, seed: int, held_out: int, report: Report | None = None
) -> Data:
    """Rendered people `first` to `first + count - 1`, and the `held_out` after them for testing.

    Args:
      first: number of the first person, >= 0.
      count, held_out: people, >= 2.
      photos: of each of them, >= 2.
      seed: of the photos.
      report: called with the people rendered and their total.

    Returns:
      The photos, all in memory: 37,632 bytes each.

    Raises:
      InputError: more photos than memory.
    """
    from opom_jax.data import synthetic  # it starts JAX, folders do not need it
    from opom_jax.data.portrait.head import SIZE

    total = count + held_out
    try:
        rendered = np.empty((total, photos, SIZE, SIZE, 3), np.uint8)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{total} people with {photos} photos do not fit into memory; lower "
            "config.data.synthetic.people or photos."
        ) from error
    for start in range(0, total, CHUNK):
        end = min(start + CHUNK, total)
        rendered[start:end] = synthetic.photos(range(first + start, first + end), photos, seed)
        if report:
            report(end, total)
    record = {
        "synthetic": {"first": first, "people": count, "photos": photos, "seed": seed},
        "held_out": held_out,
        "photos_sha256": hashlib.sha256(rendered.data).hexdigest(),
    }
    labels = np.repeat(np.arange(total, dtype=np.int32), photos)
    flat, end = rendered.reshape(-1, *rendered.shape[2:]), count * photos
    sources = ArraySource(flat[:end], labels[:end]), ArraySource(flat[end:], labels[end:])
    return Data(*sources, count, record)
