"""Unit features of many images, and a cache of them named by content."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np

from opom_jax import parallel
from opom_jax.errors import InputError
from opom_jax.networks.recognizer import Recognizer, normalize

BATCH = 64  # images of one compiled call, on each device
ALIKE = 1e-6  # features that differ by less are the same
SAME = 0.999  # cosine of two networks' features of a photo, from which the networks are one


def extractor(network: Recognizer) -> Callable[[Iterable[np.ndarray]], np.ndarray]:
    """Compiles a network into a function from batches u8[b,H,W,3], 1 <= b <= BATCH, to features
    f32[B,D] of unit length of all of them in order. Every device takes a batch at a time."""
    embed, devices = _unit(network.embed), jax.local_device_count()

    def extract(batches: Iterable[np.ndarray]) -> np.ndarray:
        rows, params = [np.zeros((0, network.spec.embedding), np.float32)], network.params
        for group in _groups(iter(batches), devices):
            images = parallel.spread(np.stack([_filled(own) for own in group]), len(group))
            params = parallel.replicated(params, images)
            features = np.asarray(embed(params, images))
            rows += [made[: len(own)] for made, own in zip(features, group, strict=True)]
        return np.concatenate(rows)

    return extract


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
    lengths = np.concatenate([np.linalg.norm(found, axis=1) for found in (probes, *more)])
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
    folder: Path, key: dict, shape: tuple[int, int], compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """`compute()` f32[shape], kept in `folder` under the hash of `key` (JSON-like).

    A file that is damaged or cannot be written costs the computation, never the result.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = folder / f"{name}.npz"
    try:
        with open(path, "rb") as file:
            features = np.load(file, allow_pickle=False)["features"]
        if features.shape == shape and features.dtype == np.float32:
            return features
    except (OSError, ValueError, EOFError, KeyError, IndexError, BadZipFile):
        pass  # absent or damaged (a .npz has checksums): computed below
    features = compute()
    partial = path.with_suffix(".partial")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            np.savez(file, features=features)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return features
