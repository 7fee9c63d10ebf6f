"""Arrays that are computed once and kept in files of which any damage is seen."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

import opom_jax
from opom_jax.files import writing

SUM = hashlib.sha256().digest_size


def kept(folder: Path, what: str, key: dict, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """`compute()`, from FOLDER/WHAT-<hash of the key>.npy if that is there and whole.

    The file is an array as NumPy stores it and the SHA-256 of all its bytes behind it, which
    `np.load` passes over.

    Args:
      folder: an existing one.
      what: for people who look at the folder.
      key: JSON-like, all that decides the array; with the package's version it names the file.
      compute: makes the array, of numbers.

    Raises:
      InputError: the file cannot be written.
    """
    path = folder / f"{what}-{hashed(key)}.npy"
    try:
        stored = path.read_bytes()
    except OSError:
        stored = b""  # absent or unreadable: made again
    content = stored[:-SUM]
    if content and hashlib.sha256(content).digest() == stored[-SUM:]:
        return np.load(io.BytesIO(content), allow_pickle=False)
    found, buffer = compute(), io.BytesIO()
    np.save(buffer, found)
    content = buffer.getvalue()
    with writing(path) as partial:
        partial.write_bytes(content + hashlib.sha256(content).digest())
    return found


def hashed(key: dict) -> str:
    """16 hex digits that name what a key and the package's version decide."""
    key = key | {"version": opom_jax.__version__}
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
