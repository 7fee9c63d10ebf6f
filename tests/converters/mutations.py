"""Seeded damage to files: to their bytes, to the tree of a JSON text, to the members of an archive.

Every function takes a `random.Random` first, so that a seed names one damaged file for ever.
"""

import io
import json
import pickletools
import random
import re
import string
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from onnx import ModelProto

INTEGERS = (0, 1, 3, 255, 2**16, 10**6, 2**31 - 1, 2**32 - 1, 10**12, 2**62, 2**63 - 1, 2**63)
VALUES = (
    *(None, True, -1, 0, 1.5, float("nan"), float("inf"), 10**6, 10**12, 2**63, 10**30),
    *("", "x", "../../x", "/etc/passwd", "None", "S1000000000", "(" * 300, "-" * 900 + "1"),
    *([], {}, [[1]], [10**12] * 3, [1] * 200, {"a": [1]}),
)
# op-codes that call os.system, get at a class, make a set, take from the memo
HOSTILE = (b"cos\nsystem\n(X\x06\0\0\0touch xtR", b"cbuiltins\neval\n", b"\x8f", b"h\x00", b"(((")
Bytes = Callable[[random.Random, bytes], bytes]


def _place(draw: random.Random, data: bytes) -> tuple[int, int]:
    start = draw.randrange(len(data))
    return start, min(len(data), start + draw.choice((1, 2, 8, 40, 200)))


def _flipped(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 3, 20))):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _number(draw: random.Random, data: bytes) -> bytes:
    """A length, a count or a side that claims too much, of 1 to 8 bytes."""
    width = draw.choice((1, 2, 4, 8))
    number = draw.choice((*INTEGERS, -1, len(data))) % 256**width
    at = draw.randrange(len(data))
    at -= at % width if draw.random() < 0.7 else 0
    return data[:at] + number.to_bytes(width, "little") + data[at + width :]


def _digits(draw: random.Random, data: bytes) -> bytes:
    """Another number in place of one that is written in digits."""
    found = list(re.finditer(rb"\d+", data))
    if not found:
        return _number(draw, data)
    a, b = draw.choice(found).span()
    return data[:a] + str(draw.choice((*INTEGERS, -1))).encode() + data[b:]


def _cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def _without(draw: random.Random, data: bytes) -> bytes:
    start, end = _place(draw, data)
    return data[:start] + data[end:]


def _filled(draw: random.Random, data: bytes) -> bytes:
    start, end = _place(draw, data)
    return data[:start] + draw.choice((b"\0", b"\xff")) * (end - start) + data[end:]


def _copied(draw: random.Random, data: bytes) -> bytes:
    """A part of the file once more elsewhere, between or in place of what was there."""
    start, end = _place(draw, data)
    at = draw.randrange(len(data))
    return data[:at] + data[start:end] + data[at + draw.choice((0, end - start)) :]


_BYTES = (_flipped, _flipped, _number, _number, _digits, _cut, _without, _filled, _copied)


def spoiled(draw: random.Random, data: bytes) -> bytes:
    """Bits flipped, numbers enlarged, parts cut, filled, copied: one to three of them."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        data = draw.choice(_BYTES)(draw, data) if data else data
    return data


def _slots(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a tree."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    found = [(tree, key) for key in keys]
    for key in keys:
        if isinstance(tree[key], dict | list):
            found += _slots(tree[key])
    return found


def _other(draw: random.Random, value: Any) -> Any:
    """Something in place of a value, often of its own kind."""
    if isinstance(value, str) and value and draw.random() < 0.6:
        text = _digits if re.search(r"\d", value) else _flipped
        return text(draw, value.encode()).decode("utf-8", "replace")
    if isinstance(value, int) and draw.random() < 0.6:
        return draw.choice((*INTEGERS, -1, -value, value + 1, 2 * value))
    if draw.random() < 0.05:
        for _ in range(draw.choice((10, 60, 400))):
            value = draw.choice(([value], {"a": value}))
        return value
    return draw.choice(VALUES)


def spoil_tree(draw: random.Random, tree: Any) -> None:
    """Values replaced, left out, copied or exchanged, keys renamed, in place: one to three."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        slots = _slots(tree)
        if not slots:
            return
        holder, key = draw.choice(slots)
        source, other = draw.choice(slots)
        kind = draw.choice(("other",) * 6 + ("gone", "copied", "renamed"))
        if kind == "other":
            holder[key] = _other(draw, holder[key])
        elif kind == "copied":
            holder[key] = json.loads(json.dumps(source[other]))
        elif kind == "gone" or isinstance(holder, list):
            del holder[key]
        else:
            holder[draw.choice(("x", "../x", *map(str, holder)))] = holder.pop(key)


def json_text(draw: random.Random, data: bytes) -> bytes:
    """A JSON text with a damaged tree, or damaged bytes."""
    if draw.random() < 0.1:
        return spoiled(draw, data)
    tree = json.loads(data)
    spoil_tree(draw, tree)
    return json.dumps(tree).encode()


def safetensors(draw: random.Random, data: bytes) -> bytes:
    """A safetensors file whose header, in JSON, is damaged and has its own length again."""
    if draw.random() < 0.5:
        return spoiled(draw, data)
    (length,) = struct.unpack_from("<Q", data)
    header = draw.choice((json_text, json_text, spoiled))(draw, data[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def onnx(draw: random.Random, data: bytes) -> bytes:
    """An ONNX file with damaged fields, or damaged bytes."""
    tree = json_format.MessageToDict(ModelProto.FromString(data))
    spoil_tree(draw, tree)
    try:
        made = json_format.ParseDict(tree, ModelProto(), ignore_unknown_fields=True)
        return made.SerializeToString()
    except Exception:  # for a tree that is no model
        return spoiled(draw, data)


def _steps(data: bytes) -> list[int]:
    """Where the op-codes of pickles begin that follow one another; 0 in what is none."""
    stream, places = io.BytesIO(data), [0]
    try:
        while True:
            places += [place or 0 for _, _, place in pickletools.genops(stream)]
    except ValueError:
        return places


def pickled(draw: random.Random, data: bytes) -> bytes:
    """A pickle with hostile op-codes between its own, or damaged bytes."""
    if draw.random() < 0.5:
        return spoiled(draw, data)
    at = draw.choice(_steps(data))
    return data[:at] + draw.choice(HOSTILE) + data[at:]


def _renamed(draw: random.Random, name: str) -> str:
    other = "".join(draw.choices(string.ascii_letters + "./\0", k=4))
    return draw.choice((f"../{name}", f"/{name}", other, name.replace("/", "/../"), name + "/"))


def archive(draw: random.Random, data: bytes, spoil: Bytes) -> bytes:
    """A zip file made anew, checksums right, of damaged members; or damaged bytes.

    Members are compressed, renamed to lead elsewhere, doubled, left out, made of many zeros.
    """
    if draw.random() < 0.4:
        return spoiled(draw, data)
    with zipfile.ZipFile(io.BytesIO(data)) as whole:
        members = [(name, whole.read(name)) for name in whole.namelist()]
    kind, chosen = draw.randrange(8), draw.randrange(len(members))
    name, content = members[chosen]
    changes = {
        0: [(_renamed(draw, name), content)],
        1: [(name, content)] * 2,
        2: [],
        3: [(name, bytes(draw.choice((10**5, 2 * 10**7))))],
    }
    members[chosen : chosen + 1] = changes.get(kind, [(name, spoil(draw, content) or b"x")])
    packed = draw.random() < (0.8 if kind == 3 else 0.1)
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w") as written:
        warnings.simplefilter("ignore")  # of doubled names
        for name, content in members:
            written.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED if packed else 0)
    return made.getvalue()


def torch_zip(draw: random.Random, data: bytes) -> bytes:
    """A torch file of the zip format."""
    return archive(draw, data, pickled if draw.random() < 0.7 else spoiled)


def torch_legacy(draw: random.Random, data: bytes) -> bytes:
    """A torch file of the legacy format."""
    return pickled(draw, data)


def keras_zip(draw: random.Random, data: bytes) -> bytes:
    """A .keras file."""
    return archive(draw, data, spoiled)
