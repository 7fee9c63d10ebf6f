"""Reads MXNet's lists of arrays (`.params`): a header, the arrays, their names.

Every array states its sizes; each is checked against the bytes that are left before anything is
read. All three generations are known: V3 (0xF993FACA), V2, V1, and the one before, whose first word
is the number of axes. Source: MXNet's NDArray::Save and its legacy loaders.
"""

import os
import struct
from math import prod
from pathlib import Path

import numpy as np

from converters.formats.contents import contents
from opom_jax.errors import InputError

HEAD = struct.pack("<2Q", 0x112, 0)
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_TYPES = dict(enumerate(("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8", "?")))
_MAX_AXES, _MAX_NAME = 32, 1000


class _Damaged(Exception):
    """What is wrong with a file, to be said after its name."""


class _Bytes:
    """A file in memory, read from the front."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> memoryview:
        if count < 0 or count > len(self.data) - self.at:
            raise _Damaged("ends within an array or a name")
        self.at += count
        return memoryview(self.data)[self.at - count : self.at]

    def numbers(self, letters: str) -> tuple[int, ...]:
        return struct.unpack(f"<{letters}", self.take(struct.calcsize(f"<{letters}")))


def read(path: os.PathLike | str) -> dict[str, dict[str, np.ndarray]]:
    """{"arg": {name: array}, "aux": {name: array}} of a `.params` file, "" where neither is said.

    Args:
      path: the file.

    Returns:
      Arrays of the stored types, read-only views of the file's bytes.

    Raises:
      InputError: unreadable, damaged, or with sparse arrays.
    """
    path = Path(path)
    source = _Bytes(contents(path))
    try:
        arrays = _arrays(source)
        names = _names(source, len(arrays))
    except _Damaged as error:
        raise InputError(f"{path} {error}; give the .params file as MXNet saved it.") from error
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in zip(names, arrays, strict=True):
        kind, colon, rest = name.partition(":")
        group = groups.setdefault(kind if colon else "", {})
        if rest in group or (not colon and name in group):
            raise InputError(
                f"{path} names {name!r} twice; give the .params file as MXNet saved it."
            )
        if array is not None:
            group[rest if colon else name] = array
    return groups


def _arrays(source: _Bytes) -> list[np.ndarray | None]:
    if bytes(source.take(len(HEAD))) != HEAD:
        raise _Damaged("is no list of MXNet arrays")
    (count,) = source.numbers("Q")
    if count > len(source.data) // 8:
        raise _Damaged("states more arrays than it has bytes")
    return [_array(source) for _ in range(count)]


def _array(source: _Bytes) -> np.ndarray | None:
    """One array, None for an empty one."""
    (magic,) = source.numbers("I")
    if magic in (_V2, _V3):
        (storage,) = source.numbers("i")
        if storage != 0:
            raise _Damaged("has sparse arrays, which no face network needs")
        (axes,) = source.numbers("i")
        letters = "q"
    elif magic == _V1:
        (axes,) = source.numbers("I")
        letters = "q"
    else:
        axes, letters = magic, "I"
    if axes < 0 or axes > _MAX_AXES:
        raise _Damaged("has an array whose head is not MXNet's")
    shape = source.numbers(letters * axes)
    if any(side < 0 for side in shape) or (axes == 0 and magic != _V3):
        return None  # a shape that is not known yet
    _device, _number, kind = source.numbers("3i")
    if kind not in _TYPES:
        raise _Damaged(f"has an array of the unknown type {kind}")
    dtype = np.dtype(_TYPES[kind])
    # NumPy, too, needs the sides of empty arrays to be of this world.
    if prod(side or 1 for side in shape) > len(source.data):
        raise _Damaged("has an array that is larger than the file")
    content = source.take(prod(shape) * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(shape) if content else np.zeros(shape, dtype)


def _names(source: _Bytes, arrays: int) -> list[str]:
    (count,) = source.numbers("Q")
    if count != arrays:
        raise _Damaged(f"has {arrays} arrays and {count} names")
    names = []
    for _ in range(count):
        (length,) = source.numbers("Q")
        if length > _MAX_NAME:
            raise _Damaged(f"has a name of {length} bytes")
        try:
            names.append(bytes(source.take(length)).decode())
        except UnicodeDecodeError as error:
            raise _Damaged("has a name that is no text") from error
    if source.at != len(source.data):
        raise _Damaged(f"has {len(source.data) - source.at} bytes after its last name")
    return names
