"""A pickle machine for torch's pickles that imports nothing and calls nothing of a file's choice.

It knows the few opcodes and names that state dicts are made of, builds stand-ins for storages and
tensors, and refuses everything else by name.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes  # noqa: F401 (makes "bfloat16" a name that NumPy knows)
import numpy as np

_MAX_PICKLE = 1 << 20  # bytes; a tensor takes 90 to 190
_MAX_NAME = 1000


class Refused(Exception):
    """The rest of the sentence that begins with the file's name."""


@dataclass(slots=True, eq=False)
class DictPairs:
    """A dict as its (key, value) pairs: hashing keys that a file chose could take for ever."""

    pairs: list = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Storage:
    dtype: np.dtype
    key: str
    nbytes: int


@dataclass(slots=True, eq=False)
class Tensor:
    """Offset, size and stride count elements, and are unchecked: whatever the file says, as is the
    quantiser, which tells how quantised integers stand for numbers."""

    storage: Storage
    offset: Any
    size: Any
    stride: Any
    dtype: np.dtype
    quantiser: Any = None


_DTYPES = "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool"
_STORAGES = "Float Double Half BFloat16 Long Int Short Char Byte Bool"
_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": DictPairs,
    # (storage, offset, size, stride, requires gradient, hooks, dtype)
    "torch._utils._rebuild_tensor": lambda s, o, n, t: Tensor(s, o, n, t, s.dtype),
    "torch._utils._rebuild_tensor_v2": lambda s, o, n, t, g, h: Tensor(s, o, n, t, s.dtype),
    "torch._utils._rebuild_tensor_v3": lambda s, o, n, t, g, h, d: Tensor(s, o, n, t, d),
    # (storage, offset, size, stride, quantiser, requires gradient, hooks)
    "torch._utils._rebuild_qtensor": lambda s, o, n, t, q, g, h: Tensor(s, o, n, t, s.dtype, q),
    "torch._utils._rebuild_parameter": lambda tensor, g, h: tensor,
    "torch.storage.UntypedStorage": np.dtype("uint8"),
    "torch.qint8": np.dtype("int8"),
    "torch.QInt8Storage": np.dtype("int8"),
    **{f"torch.{scheme}": scheme for scheme in ("per_tensor_affine", "per_channel_affine")},
    **{f"torch.{d}": np.dtype(d) for d in (*_DTYPES.split(), "uint16", "uint32", "uint64")},
    **{
        f"torch.{storage}Storage": np.dtype(dtype)
        for storage, dtype in zip(_STORAGES.split(), _DTYPES.split(), strict=True)
    },
}


def _global(name: str) -> Any:
    if name not in _GLOBALS:
        raise Refused(
            f"holds the pickled class {ascii(name[:_MAX_NAME])[1:-1]}, which would run code; "
            "save its state_dict() instead."
        )
    return _GLOBALS[name]


class _Machine:
    """The stack machine of pickle, for plain values, `DictPairs`s and `Tensor`s."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.storages: dict[str, Storage] = {}
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
        if not isinstance(self.stack[-1], DictPairs):
            raise TypeError("a state for what has none")

    def storage(self, pid: Any) -> Storage:
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"):
            raise TypeError("a persistent id that is no storage")
        _, dtype, key, _, count, *view = pid
        plain = isinstance(dtype, np.dtype) and isinstance(key, str) and isinstance(count, int)
        if not plain or view not in ([], [None]):
            raise TypeError("a storage of another kind")
        return self.storages.setdefault(key, Storage(dtype, key, count * dtype.itemsize))


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
    "EMPTY_DICT": lambda m, arg: m.push(DictPairs()),
    "SETITEM": lambda m, arg: m.update(m.last(2)),
    "SETITEMS": lambda m, arg: m.update(m.since_mark()),
    "GLOBAL": lambda m, arg: m.push(_global(arg.replace(" ", "."))),
    "STACK_GLOBAL": lambda m, arg: m.push(_global(".".join(m.last(2)))),
    "REDUCE": lambda m, arg: m.reduce(*m.last(2)),
    "BUILD": lambda m, arg: m.build(*m.last(1)),
    "BINPERSID": lambda m, arg: m.push(m.storage(*m.last(1))),
}


def unpickle(data: bytes | memoryview, start: int = 0) -> tuple[Any, dict[str, Storage], int]:
    """(object, its storages, where the pickle ends)."""
    stream = io.BytesIO(data[start : start + _MAX_PICKLE])
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            _STEPS[opcode.name](machine, argument)
    except ValueError:
        if stream.tell() < _MAX_PICKLE:
            raise
        raise Refused(
            f"is damaged, or pickles over {_MAX_PICKLE} bytes of names; "
            "fetch it again, or save the network's state_dict() alone."
        ) from None
    return machine.stack.pop(), machine.storages, start + stream.tell()
