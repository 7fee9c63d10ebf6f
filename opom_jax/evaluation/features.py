"""Unit features of many images, and a cache of them named by content."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from opom_jax import parallel
from opom_jax.errors import InputError
from opom_jax.files import making_file
from opom_jax.networks.recognizer import Recognizer, normalize

Pictures = TypeVar("Pictures", np.ndarray, Sequence[Path])

BATCH = 64  # images of one compiled call, on each device
SUM, BLOCK = hashlib.sha256().digest_size, 1 << 20  # bytes
ALIKE = 1e-6  # features that differ by less are the same
SAME = 0.999  # cosine of two networks' features of a photo, from which the networks are one


def extractor(network: Recognizer) -> Callable[..., np.ndarray]:
    """Compiles a network into a function from batches u8 or f32[b,H,W,3], RGB in 0..255,
    1 <= b <= BATCH, to features f32[B,D] of unit length of all of them in order. Every device takes
    a batch at a time. A second argument of this shape is where they go; without it memory holds
    them twice for a moment."""
    embed, devices = _unit(network.embed), jax.local_device_count()

    def parts(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        params = network.params
        for group in _groups(iter(batches), devices):
            images = parallel.spread(np.stack([_filled(own) for own in group]), len(group))
            params = parallel.replicated(params, images)
            features = np.asarray(embed(params, images))
            yield from (made[: len(own)] for made, own in zip(features, group, strict=True))

    def extract(batches: Iterable[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        if out is None:
            empty = np.zeros((0, network.spec.embedding), np.float32)
            return np.concatenate([empty, *parts(batches)])
        done = 0
        for part in parts(batches):
            out[done : done + len(part)] = part
            done += len(part)
        return out

    return extract


def batches(pictures: Pictures) -> Iterator[Pictures]:
    """Photos u8[B,H,W,3], or their paths, in order, at most `BATCH` at a time."""
    return (pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH))


def _groups(batches: Iterator[np.ndarray], devices: int) -> Iterator[list[np.ndarray]]:
    """As many batches as there are devices, then what is left one by one: two shapes in all."""
    while group := list(islice(batches, devices)):
        yield from [group] if len(group) == devices else [[own] for own in group]


def _filled(images: np.ndarray) -> np.ndarray:
    """BATCH images: the last repeated."""
    return images[np.minimum(np.arange(BATCH), len(images) - 1)]


@functools.cache
def _unit(embed: Callable) -> Callable:
    """Compiled once for all networks of a kind."""
    unit = lambda params, images: normalize(embed(params, images.astype(jnp.float32)))  # noqa: E731
    return parallel.OverPeople(unit, (None, 0))  # "people" are batches


def check_features(network: str, probes: np.ndarray, *more: np.ndarray) -> None:
    """Refuses what a broken network makes of photos, which ranks would take for recognition.

    Args:
      network: its name.
      probes: f32[B,D] of unit length, of unlike photos.
      more: other features f32[B,D], of any photos.

    Raises:
      InputError: features that are not finite, or zero, or probes' that are all the same.
    """
    squares = [np.einsum("bd,bd->b", found, found) for found in (probes, *more)]  # no copy
    lengths = np.sqrt(np.concatenate(squares))
    if not np.isfinite(lengths).all():
        wrong = "not finite"
    elif not lengths.all():
        wrong = "zero"
    elif np.ptp(probes, axis=0).max() < ALIKE:
        wrong = "the same for all photos"
    else:
        return
    raise InputError(
        f"The features of the network {network!r} are {wrong}; convert or train it again."
    )


def same_network(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether unit features f32[B,D] and f32[B,E] of the same photos are one network's, be its
    weights from another file, rounded to half precision or merged with batch norms."""
    return one.shape == two.shape and bool((np.einsum("bd,bd->b", one, two) >= SAME).all())


def cached(
    folder: Path, key: dict, shape: tuple[int, int], fill: Callable[[np.ndarray], object]
) -> np.ndarray:
    """Features f32[shape] that `fill` writes into an array, kept in `folder` under the hash of
    `key` (JSON-like): mapped from the file, so that memory holds what is looked at.

    A file that is damaged or cannot be written costs the computation, never the result.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = folder / f"{name}.npy"
    if (known := _mapped(path, shape)) is not None:
        return known
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with making_file(path) as partial:
            features = _room(partial, shape)
            fill(features)
            features.flush()
            with open(partial, "ab") as file:
                file.write(_digest(partial, features.nbytes))
        return features
    except OSError:
        features = np.empty(shape, np.float32)
        fill(features)
        return features


def _room(path: Path, shape: tuple[int, int]) -> np.memmap:
    """A new file for an array, mapped; OSError, and not a crash later, if the disk is full."""
    features = np.lib.format.open_memmap(path, "w+", np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "rb+") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
    return features


def _mapped(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The array of a file, if it is there, whole and of this shape."""
    try:
        features = np.lib.format.open_memmap(path, mode="r")
        if (features.shape, features.dtype) != (shape, np.float32):
            return None
        with open(path, "rb") as file:
            file.seek(-SUM, os.SEEK_END)
            return features if file.read() == _digest(path, features.nbytes) else None
    except (OSError, ValueError, EOFError):
        return None


def _digest(path: Path, size: int) -> bytes:
    """SHA-256 of the array of so many bytes that a file of NumPy's holds."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while size > 0 and (block := file.read(min(size, BLOCK))):
            sha.update(block)
            size -= len(block)
    return sha.digest()
