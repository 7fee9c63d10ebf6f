"""Reads torch checkpoints without torch, and without running anything that their pickles ask for.

Both formats come down to the same three things: a pickled object whose tensors only name their
storages, the bytes of each storage, and the order of those bytes. Every file is taken for hostile:
its sizes are checked against the bytes that are there, and what it names is not imported or called.
"""

import io
import math
import os
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (makes "bfloat16" a name that NumPy knows)
import numpy as np

from opom_jax.errors import InputError

_LEGACY_HEAD = (0x1950A86A20F9469CFC6C, 1001)
_SPARE_MEMORY = 512 << 20  # bytes by which tensors that share storages may outgrow their file
_MAX_PICKLE = 1 << 20  # bytes; a tensor takes 90 to 190
_MAX_MEMBERS = 50_000
_MAX_DEPTH = 20
_MAX_NAME = 1000


class _Refused(Exception):
    """The rest of the sentence that begins with the file's name."""


@dataclass(slots=True, eq=False)
class _Dict:
    """A dict as its (key, value) pairs: hashing keys that a file chose could take for ever."""

    pairs: list = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Storage:
    dtype: np.dtype
    key: str
    nbytes: int


@dataclass(slots=True, eq=False)
class _Tensor:
    """Offset, size and stride count elements, and are unchecked: whatever the file says."""

    storage: _Storage
    offset: Any
    size: Any
    stride: Any
    dtype: np.dtype


_DTYPES = "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool"
_STORAGES = "Float Double Half BFloat16 Long Int Short Char Byte Bool"
_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": _Dict,
    # (storage, offset, size, stride, requires gradient, hooks, dtype)
    "torch._utils._rebuild_tensor": lambda s, o, n, t: _Tensor(s, o, n, t, s.dtype),
    "torch._utils._rebuild_tensor_v2": lambda s, o, n, t, g, h: _Tensor(s, o, n, t, s.dtype),
    "torch._utils._rebuild_tensor_v3": lambda s, o, n, t, g, h, d: _Tensor(s, o, n, t, d),
    "torch._utils._rebuild_parameter": lambda tensor, g, h: tensor,
    "torch.storage.UntypedStorage": np.dtype("uint8"),
    **{f"torch.{d}": np.dtype(d) for d in (*_DTYPES.split(), "uint16", "uint32", "uint64")},
    **{
        f"torch.{storage}Storage": np.dtype(dtype)
        for storage, dtype in zip(_STORAGES.split(), _DTYPES.split(), strict=True)
    },
}


def _global(name: str) -> Any:
    if name not in _GLOBALS:
        raise _Refused(
            f"holds the pickled class {ascii(name[:_MAX_NAME])[1:-1]}, which would run code; "
            "save its state_dict() instead."
        )
    return _GLOBALS[name]


class _Machine:
    """The stack machine of pickle, for plain values, `_Dict`s and `_Tensor`s."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.storages: dict[str, _Storage] = {}
        self.push = self.stack.append

    def last(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def put(self, index: int) -> None:
        # All picklers count up (Python 2 from 1), so no index has to cost memory.
        if index > len(self.memo) + 1:
            raise IndexError("memo index out of order")
        self.memo.extend([None] * (index + 1 - len(self.memo)))
        self.memo[index] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        self.stack[-1].pairs.extend(zip(items[::2], items[1::2], strict=True))

    def reduce(self, function: Callable, args: tuple) -> None:
        self.push(function(*args))

    def build(self, state: object) -> None:
        if not isinstance(self.stack[-1], _Dict):
            raise TypeError("a state for what has none")

    def storage(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"):
            raise TypeError("a persistent id that is no storage")
        _, dtype, key, _, count, *view = pid
        plain = isinstance(dtype, np.dtype) and isinstance(key, str) and isinstance(count, int)
        if not plain or view not in ([], [None]):
            raise TypeError("a storage of another kind")
        return self.storages.setdefault(key, _Storage(dtype, key, count * dtype.itemsize))


_LITERALS = """
    INT BININT BININT1 BININT2 LONG LONG1 BINFLOAT BINSTRING SHORT_BINSTRING BINUNICODE
    SHORT_BINUNICODE BINBYTES SHORT_BINBYTES
"""
# What makes instances, sets, extensions and out-of-band buffers is left out.
_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, arg: None),
    **dict.fromkeys(_LITERALS.split(), lambda m, arg: m.push(arg)),
    "NONE": lambda m, arg: m.push(None),
    "NEWTRUE": lambda m, arg: m.push(True),
    "NEWFALSE": lambda m, arg: m.push(False),
    "MARK": lambda m, arg: m.marks.append(len(m.stack)),
    "POP": lambda m, arg: m.stack.pop(),
    "MEMOIZE": lambda m, arg: m.put(len(m.memo)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, arg: m.put(arg)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, arg: m.push(m.memo[arg])),
    "EMPTY_TUPLE": lambda m, arg: m.push(()),
    "TUPLE": lambda m, arg: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, arg: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, arg: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, arg: m.push(tuple(m.last(3))),
    "EMPTY_LIST": lambda m, arg: m.push([]),
    "APPEND": lambda m, arg: m.extend(m.last(1)),
    "APPENDS": lambda m, arg: m.extend(m.since_mark()),
    "EMPTY_DICT": lambda m, arg: m.push(_Dict()),
    "SETITEM": lambda m, arg: m.update(m.last(2)),
    "SETITEMS": lambda m, arg: m.update(m.since_mark()),
    "GLOBAL": lambda m, arg: m.push(_global(arg.replace(" ", "."))),
    "STACK_GLOBAL": lambda m, arg: m.push(_global(".".join(m.last(2)))),
    "REDUCE": lambda m, arg: m.reduce(*m.last(2)),
    "BUILD": lambda m, arg: m.build(*m.last(1)),
    "BINPERSID": lambda m, arg: m.push(m.storage(*m.last(1))),
}


def _unpickle(data: bytes | memoryview, start: int = 0) -> tuple[Any, dict[str, _Storage], int]:
    """(object, its storages, where the pickle ends)."""
    stream = io.BytesIO(data[start : start + _MAX_PICKLE])
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            _STEPS[opcode.name](machine, argument)
    except ValueError:
        if stream.tell() < _MAX_PICKLE:
            raise
        raise _Refused(
            f"is damaged, or pickles over {_MAX_PICKLE} bytes of names; "
            "fetch it again, or save the network's state_dict() alone."
        ) from None
    return machine.stack.pop(), machine.storages, start + stream.tell()


def _members(data: bytes) -> dict[str, memoryview]:
    """The members of a zip file, whose CRCs hold (torch can leave them out, as 0)."""
    # Ahead of zipfile, which takes half a kilobyte for every entry.
    if data.count(b"PK\1\2") > _MAX_MEMBERS:
        raise _Refused(f"has more than {_MAX_MEMBERS} members; give a checkpoint of one network.")
    entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    members = {}
    # Members that overlap would be read again and again.
    if sum(entry.compress_size for entry in entries) > len(data):
        raise zipfile.BadZipFile("members that overlap")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise _Refused("has compressed or encrypted members; save it again with torch.save().")
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
        raise _Refused("is a TorchScript archive; save its state_dict() with torch.save().")
    order = {b"little": "<", b"big": ">"}[bytes(members.get(f"{prefix}/byteorder", b"little"))]
    folder = f"{prefix}/data/"
    storages = {n.removeprefix(folder): m for n, m in members.items() if n.startswith(folder)}
    return _unpickle(members[f"{prefix}/data.pkl"])[0], storages, order


def _read_legacy(data: bytes) -> tuple[Any, Mapping[str, memoryview], str]:
    """As `_read_zip`; this format is little-endian on every machine."""
    if data[257:262] == b"ustar":
        raise _Refused("has torch's old tar format; load and save it with a current torch.")
    end = 0
    for expected in _LEGACY_HEAD:
        head, _, end = _unpickle(data, end)
        if head != expected:
            raise ValueError("not the head of a legacy file")
    _, _, end = _unpickle(data, end)  # sizes of C's types on the machine that saved
    root, declared, end = _unpickle(data, end)
    keys, _, end = _unpickle(data, end)
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
) -> Iterator[tuple[str, dict[str, _Tensor]]]:
    """(key path, tensors by name) of every dict that holds tensors, each dict once."""
    pairs = node.pairs if isinstance(node, _Dict) else node
    if not isinstance(pairs, list | tuple) or not pairs or id(pairs) in seen:
        return
    seen.add(id(pairs))
    if not isinstance(node, _Dict):
        pairs = list(enumerate(pairs))
    elif group := {k: v for k, v in pairs if isinstance(k, str) and isinstance(v, _Tensor)}:
        yield "/".join(map(str, path)), group
    if len(path) == _MAX_DEPTH:
        raise _Refused("nests values too deeply; save the network's state_dict() alone.")
    for key, value in pairs:
        if isinstance(key, str | int):
            yield from _groups(value, (*path, key), seen)


def _bits(tensor: _Tensor, content: memoryview, order: str) -> np.ndarray:
    """The tensor's elements as unsigned integers: a view of the file's own bytes."""
    size, stride, offset, item = tensor.size, tensor.stride, tensor.offset, tensor.dtype.itemsize
    numbers = (*size[:64], *stride[:64], offset)
    if len(numbers) != 2 * len(size) + 1 or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("no shape of a tensor")
    count = math.prod(size)
    end = offset + (1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if count else 0)
    if not max(count, end) * item <= tensor.storage.nbytes <= len(content):
        raise _Refused(
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
    groups: dict[str, dict[str, tuple[np.ndarray, np.dtype]]] = {}
    for path, tensors in _groups(root, (), set()):
        if path in groups or len(path) > _MAX_NAME:
            raise _Refused(
                f"has keys that are too long, or come twice ({path[:100]!a}); "
                "save the network's state_dict() alone."
            )
        groups[path] = {
            name: (_bits(tensor, storages[tensor.storage.key], order), tensor.dtype)
            for name, tensor in tensors.items()
        }
    wanted = sum(bits.nbytes for group in groups.values() for bits, _ in group.values())
    if wanted > len(data) + _SPARE_MEMORY:
        raise _Refused("repeats its storages too often; save the network's state_dict() alone.")
    return {path: {name: _array(*v) for name, v in group.items()} for path, group in groups.items()}


def read(path: str | os.PathLike) -> dict[str, dict[str, np.ndarray]]:
    """Groups of tensors in a torch file (zip or legacy format).

    Args:
      path: file that torch.save() wrote; any .pth, .pt or .ckpt.

    Returns:
      {key path of a dict in the file: {name: array}} in the file's order, for each dict that holds
      tensors: "" is the top level, "a/b" is nested, list items go by their index. Arrays have the
      tensors' shapes and dtypes (bfloat16 from ml_dtypes) and are owned, C-contiguous and native.
      Values that are no tensors are left out, as are tensors whose keys are no strings.

    Raises:
      InputError: no file, no torch file, a damaged one, or one that pickles more than tensors.
    """
    try:
        if not Path(path).is_file():
            raise _Refused("is not a file; give the path of a torch checkpoint.")
        return _read(Path(path).read_bytes())
    except _Refused as refused:
        raise InputError(f"{os.fspath(path)} {refused}") from None
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); check the path and its permissions."
        raise InputError(f"{os.fspath(path)} {reason}") from error
    except Exception as error:  # damaged bytes can raise nearly anything, far from the damage
        reason = "is damaged or no torch checkpoint; fetch it again, or save it with torch.save()."
        raise InputError(f"{os.fspath(path)} {reason}") from error
