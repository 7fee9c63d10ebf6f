"""Reads torch checkpoints without torch, and without running anything that their pickles ask for.

Both formats come down to the same three things: a pickled object whose tensors only name their
storages, the bytes of each storage, and the order of those bytes. Every file is taken for hostile:
its sizes are checked against the bytes that are there, and what it names is not imported or called.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (makes "bfloat16" a name that NumPy knows)
import numpy as np

from converters.formats.torch_pickle import (
    DictPairs,
    Refused,
    Tensor,
    unpickle,
)
from converters.formats.torch_quantised import QUANTISED_GROWTH, dequantised, named_tensors
from opom_jax.errors import InputError

_LEGACY_HEAD = (0x1950A86A20F9469CFC6C, 1001)
_SPARE_MEMORY = 512 << 20  # bytes by which tensors that share storages may outgrow their file
_MAX_MEMBERS = 50_000
_MAX_DEPTH = 20
_MAX_NAME = 1000


def _members(data: bytes) -> dict[str, memoryview]:
    """The members of a zip file, whose CRCs hold (torch can leave them out, as 0)."""
    # Ahead of zipfile, which takes half a kilobyte for every entry.
    if data.count(b"PK\1\2") > _MAX_MEMBERS:
        raise Refused(f"has more than {_MAX_MEMBERS} members; give a checkpoint of one network.")
    entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    members = {}
    # Members that overlap would be read again and again.
    if sum(entry.compress_size for entry in entries) > len(data):
        raise zipfile.BadZipFile("members that overlap")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise Refused("has compressed or encrypted members; save it again with torch.save().")
        name_and_extra = struct.unpack_from("<2H", data, entry.header_offset + 26)
        start = entry.header_offset + 30 + sum(name_and_extra)
        content = memoryview(data)[start : start + entry.file_size]
        sizes = {entry.file_size, entry.compress_size, len(content)}
        if entry.header_offset < 0 or len(sizes) > 1 or entry.filename in members:
            raise zipfile.BadZipFile("a member out of bounds, or twice")
        if entry.CRC and zlib.crc32(content) != entry.CRC:
            raise zipfile.BadZipFile("a member with another checksum")
        members[entry.filename] = content
    return members


def _read_zip(data: bytes) -> tuple[Any, Mapping[str, memoryview], str]:
    """(object, {key: bytes of the storage}, NumPy's letter for the byte order)."""
    members = _members(data)
    prefixes = {name.split("/")[0] for name in members}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    if any(name.startswith((f"{prefix}/code/", f"{prefix}/constants.pkl")) for name in members):
        raise Refused("is a TorchScript archive; save its state_dict() with torch.save().")
    order = {b"little": "<", b"big": ">"}[bytes(members.get(f"{prefix}/byteorder", b"little"))]
    folder = f"{prefix}/data/"
    storages = {n.removeprefix(folder): m for n, m in members.items() if n.startswith(folder)}
    return unpickle(members[f"{prefix}/data.pkl"])[0], storages, order


def _read_legacy(data: bytes) -> tuple[Any, Mapping[str, memoryview], str]:
    """As `_read_zip`; this format is little-endian on every machine."""
    if data[257:262] == b"ustar":
        raise Refused("has torch's old tar format; load and save it with a current torch.")
    end = 0
    for expected in _LEGACY_HEAD:
        head, _, end = unpickle(data, end)
        if head != expected:
            raise ValueError("not the head of a legacy file")
    _, _, end = unpickle(data, end)  # sizes of C's types on the machine that saved
    root, declared, end = unpickle(data, end)
    keys, _, end = unpickle(data, end)
    storages = {}
    for key in keys:
        if not isinstance(key, str):
            raise ValueError("a key that is no string")
        (count,) = struct.unpack_from("<q", data, end)
        start, end = end + 8, end + 8 + count * declared[key].dtype.itemsize
        if not start <= end <= len(data):
            raise EOFError("a storage beyond the file's end")
        storages[key] = memoryview(data)[start:end]
    return root, storages, "<"


def _groups(
    node: Any, path: tuple[str | int, ...], seen: set[int]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(key path, tensors by name) of every dict that holds tensors, each dict once."""
    pairs = node.pairs if isinstance(node, DictPairs) else node
    if not isinstance(pairs, list | tuple) or not pairs or id(pairs) in seen:
        return
    seen.add(id(pairs))
    if not isinstance(node, DictPairs):
        pairs = list(enumerate(pairs))
    elif group := named_tensors(pairs):
        yield "/".join(map(str, path)), group
    if len(path) == _MAX_DEPTH:
        raise Refused("nests values too deeply; save the network's state_dict() alone.")
    for key, value in pairs:
        if isinstance(key, str | int):
            yield from _groups(value, (*path, key), seen)


def _bits(tensor: Tensor, content: memoryview, order: str) -> np.ndarray:
    """The tensor's elements as unsigned integers: a view of the file's own bytes."""
    size, stride, offset, item = tensor.size, tensor.stride, tensor.offset, tensor.dtype.itemsize
    numbers = (*size[:64], *stride[:64], offset)
    if len(numbers) != 2 * len(size) + 1 or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("no shape of a tensor")
    count = math.prod(size)
    end = offset + (1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if count else 0)
    if not max(count, end) * item <= tensor.storage.nbytes <= len(content):
        raise Refused(
            "holds a tensor that repeats its storage or reaches outside it; "
            "save it again after contiguous()."
        )
    strides = [s * item for s in stride]
    return np.ndarray(size, f"{order}u{item}", content, offset * item, strides)


def _array(bits: np.ndarray, dtype: np.dtype) -> np.ndarray:
    array = np.empty(bits.shape, dtype)
    # As bits, NumPy also swaps the bytes of bfloat16; a bool must be 0 or 1 whatever the file has.
    array.view(bits.dtype.newbyteorder("="))[...] = bits != 0 if dtype.kind == "b" else bits
    return array


def _read(data: bytes) -> dict[str, dict[str, np.ndarray]]:
    root, storages, order = (_read_zip if data.startswith(b"PK") else _read_legacy)(data)
    groups: dict[str, dict[str, Tensor]] = {}
    for path, tensors in _groups(root, (), set()):
        if path in groups or len(path) > _MAX_NAME:
            raise Refused(
                f"has keys that are too long, or come twice ({path[:100]!a}); "
                "save the network's state_dict() alone."
            )
        groups[path] = tensors

    def bits(tensor: Tensor) -> np.ndarray:
        return _bits(tensor, storages[tensor.storage.key], order)

    def stored(tensor: Tensor) -> np.ndarray:
        return _array(bits(tensor), tensor.dtype)

    def values(tensor: Tensor) -> np.ndarray:
        array, quantiser = stored(tensor), tensor.quantiser
        return array if quantiser is None else dequantised(array, quantiser, stored)

    every = (tensor for group in groups.values() for tensor in group.values())
    wanted = sum(bits(t).nbytes * (1 if t.quantiser is None else QUANTISED_GROWTH) for t in every)
    if wanted > len(data) + _SPARE_MEMORY:
        raise Refused("repeats its storages too often; save the network's state_dict() alone.")
    return {path: {name: values(t) for name, t in group.items()} for path, group in groups.items()}


def read(path: str | os.PathLike) -> dict[str, dict[str, np.ndarray]]:
    """Groups of tensors in a torch file (zip or legacy format).

    Args:
      path: file that torch.save() wrote; any .pth, .pt or .ckpt.

    Returns:
      {key path of a dict in the file: {name: array}} in the file's order, for each dict that holds
      tensors: "" is the top level, "a/b" is nested, list items go by their index. Arrays have the
      tensors' shapes and dtypes (bfloat16 from ml_dtypes; float32 for quantised ones, whose layers
      are renamed, see `torch_quantised`) and are owned, C-contiguous and native. Values that are
      no tensors are left out, as are tensors whose keys are no strings.

    Raises:
      InputError: no file, no torch file, a damaged one, or one that pickles more than tensors.
    """
    try:
        if not Path(path).is_file():
            raise Refused("is not a file; give the path of a torch checkpoint.")
        return _read(Path(path).read_bytes())
    except Refused as refused:
        raise InputError(f"{os.fspath(path)} {refused}") from None
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); check the path and its permissions."
        raise InputError(f"{os.fspath(path)} {reason}") from error
    except Exception as error:  # damaged bytes can raise nearly anything, far from the damage
        reason = "is damaged or no torch checkpoint; fetch it again, or save it with torch.save()."
        raise InputError(f"{os.fspath(path)} {reason}") from error
