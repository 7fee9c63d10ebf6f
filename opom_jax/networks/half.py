"""Weights at half the size: one `params.npz`, kernels in float16, all else in float32.

float16 keeps 11 bits of a kernel between 6e-5 and 65504. What has one axis (batch statistics,
whose variances may leave that range, biases, slopes) and what would overflow stays float32.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

FILE = "params.npz"


def rounded(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{path: f32 array} with the values that are left after `write` and `read`."""
    return {path: _stored(array).astype(np.float32) for path, array in arrays.items()}


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Stores {path: array}; OSError if there is no room."""
    with open(path, "wb") as file:
        np.savez(file, **{name: _stored(a) for name, a in arrays.items()})  # pyright: ignore


def read(path: Path, shapes: Mapping[str, list[int]]) -> dict[str, np.ndarray]:
    """{path: f32 array} of a file that `write` made; unpickles nothing.

    Args:
      path: the .npz file.
      shapes: {path: shape} it must hold.

    Raises:
      ValueError: other paths, shapes or types; what NumPy and zipfile raise for damaged files.
    """
    arrays = {}
    with np.load(path, allow_pickle=False) as stored:
        if set(stored.files) != set(shapes):
            raise ValueError("other arrays than its card lists")
        for name, shape in shapes.items():
            array = stored[name]
            if list(array.shape) != shape or array.dtype not in (np.float16, np.float32):
                raise ValueError(f"{name} is {array.dtype}{array.shape}")
            arrays[name] = array.astype(np.float32)
    return arrays


def _stored(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array, np.float32)
    fits = array.ndim > 1 and np.abs(array).max(initial=0) <= np.finfo(np.float16).max
    return array.astype(np.float16) if fits else array
