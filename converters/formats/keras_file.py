"""Reads Keras weights: `.h5` of any generation, and `.keras`, by h5py in a process of its own.

HDF5 is a large C library that damaged files are known to crash, so a child with bounded memory and
time reads the file and hands over plain arrays; whatever happens to it ends in one sentence. Links
to other files, virtual and external data are refused, and no Keras configuration is run.
"""

import io
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converters.formats.contents import contents
from opom_jax.errors import InputError

HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
WEIGHTS = "model.weights.h5"  # the member of a .keras file
# of all arrays, beside four times the file; of the child, and one more each 50 MB
_SPARE, _SECONDS = 128 << 20, 4
_MAX_ARRAYS, _MAX_DEPTH = 20_000, 20
_START = f"import sys, {__name__} as it; sys.exit(it._child(*map(int, sys.argv[1:])))"


def read(path: os.PathLike | str) -> dict[str, dict[str, np.ndarray]]:
    """{"": {name: array}}; names are the paths within the file, "conv1/conv1/kernel:0".

    Args:
      path: the .h5 or .keras file.

    Returns:
      Arrays of the stored types, floating or integer.

    Raises:
      InputError: unreadable, damaged, with links or data outside the file.
    """
    path = Path(path)
    content = contents(path)
    if content.startswith(ZIP):
        content = _member(path, content)
    size = len(content)
    memory, seconds = _SPARE + 4 * size, _SECONDS + size // (50 << 20)
    command = [sys.executable, "-P", "-c", _START, str(memory), str(seconds)]
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": root, "OPENBLAS_NUM_THREADS": "1"}
    try:
        child = subprocess.run(
            command, input=content, capture_output=True, timeout=10 * seconds, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path} takes too long to read; save it again.") from error
    if child.returncode != 0:
        said = child.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = said[-1] if said and child.returncode == 3 else "it is damaged"
        raise InputError(f"{path} is no Keras weights file: {reason}; save it again.")
    with np.load(io.BytesIO(child.stdout), allow_pickle=False) as stored:
        names = bytes(stored["names"]).decode().split("\n") if "0" in stored else []
        return {"": {name: stored[str(k)] for k, name in enumerate(names)}}


def _member(path: Path, content: bytes) -> bytes:
    """The weights within a .keras file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entry = archive.getinfo(WEIGHTS)
            too_large = entry.file_size > 20 * len(content) + _SPARE
            if too_large or archive.namelist().count(WEIGHTS) > 1:
                raise zipfile.BadZipFile("a bomb, or weights twice")
            with archive.open(entry) as file:
                return file.read(entry.file_size)
    except KeyError as error:
        raise InputError(f"{path} has no {WEIGHTS}; give a .keras or .h5 file.") from error
    except Exception as error:  # zipfile and zlib raise many kinds
        raise InputError(f"{path} is a damaged .keras file; save it again.") from error


class _Refused(Exception):
    """A reason to stop, in words."""


def _arrays(file, budget: int) -> Iterator[tuple[str, np.ndarray]]:
    """(path, array) of every data set, each once, and nothing from outside the file."""
    import h5py
    from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

    waiting, seen, places = [("", file, 0)], 0, set()
    while waiting:
        prefix, group, depth = waiting.pop()
        for name in group:
            path = f"{prefix}/{name}" if prefix else name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise _Refused(f"it links to elsewhere at {path!r}")
            item = group[name]
            if (place := h5o.get_info(item.id).addr) in places:
                raise _Refused(f"it holds {path!r} under two names")
            places.add(place)
            if isinstance(item, h5py.Group):
                if depth == _MAX_DEPTH:
                    raise _Refused(f"it is nested too deeply at {path!r}")
                waiting.append((path, item, depth + 1))
                continue
            if item.external or item.is_virtual:
                raise _Refused(f"it keeps {path!r} in other files")
            if item.dtype.kind not in "fiu":
                continue  # text, such as names of classes
            seen, budget = seen + 1, budget - item.nbytes
            if budget < 0 or seen > _MAX_ARRAYS or "\n" in path:
                raise _Refused("its arrays are larger than the file can hold")
            yield path, np.asarray(item[()])


def _child(memory: int, seconds: int) -> int:
    """Reads the file from standard input, writes an .npz to standard output."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import h5py

    content = sys.stdin.buffer.read()
    limit = 3 * memory + (512 << 20)  # Python, the arrays, the .npz of them
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            found = dict(_arrays(file, memory))
    except _Refused as error:
        print(error, file=sys.stderr)
        return 3
    except Exception:  # h5py raises many kinds
        return 2
    names = np.frombuffer("\n".join(found).encode(), np.uint8)
    numbered: dict[str, Any] = {str(k): array for k, array in enumerate(found.values())}
    out = io.BytesIO()
    np.savez(out, names=names, **numbered)
    sys.stdout.buffer.write(out.getbuffer())
    return 0
