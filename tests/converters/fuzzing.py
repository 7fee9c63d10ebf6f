"""Reads damaged files in a process of its own: `python -m tests.converters.fuzzing`, see `main`.

The process may take a gibibyte more than after a good file and five seconds a file; an audit hook
ends it where something is run, or written outside its folder. One line a file says what became of
it; a line with "!" is a failure, and its first word is the seed that shows it again.
"""

import faulthandler
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import h5py  # noqa: F401 (once here, not in every forked child)
import numpy as np

from converters import formats
from converters.formats import keras_file, torch_file
from opom_jax.errors import InputError
from tests.converters import mutations

SECONDS, MEMORY = 5, 1 << 30
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod")


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
      spoil: (source of chance, good bytes) -> damaged bytes.
      read: what is given the damaged file.
    """

    spoil: mutations.Bytes
    read: Callable[[Path], Any]


def _checked(groups: dict[str, dict[str, np.ndarray]]) -> None:
    """Touches every number, and looks at the types."""
    for group in groups.values():
        for array in group.values():
            assert array.dtype.kind in "fiub" or array.dtype.name == "bfloat16", array.dtype
            array.tobytes()


def _run(graph, arrays: dict[str, np.ndarray], path: Path) -> None:
    """What `convert_graph` does with them, short of writing."""
    from opom_jax.networks.recognizer import graph_spec

    _checked({"": arrays})
    try:
        graph_spec(graph)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_onnx(path: Path) -> None:
    from converters.graphs import onnx_file

    _run(*onnx_file.read(path, (8, 8)), path)


def _read_mxnet(symbol: Path, parameters: Path) -> None:
    from converters.graphs import mxnet

    _run(*mxnet.read(symbol, parameters, (8, 8)), symbol)


def _read_card(path: Path) -> None:
    from opom_jax.networks import recognizer

    recognizer.load(path.parent)


def _read_params(path: Path) -> None:
    _checked(formats.read(path))
    _read_mxnet(path.with_name("good-symbol.json"), path)


KINDS = {
    "torch_zip": Kind(mutations.torch_zip, lambda path: _checked(torch_file.read(path))),
    "torch_legacy": Kind(mutations.torch_legacy, lambda path: _checked(formats.read(path))),
    "params": Kind(mutations.spoiled, _read_params),
    "symbol": Kind(mutations.json_text, lambda p: _read_mxnet(p, p.with_name("good.params"))),
    "onnx": Kind(mutations.onnx, _read_onnx),
    "safetensors": Kind(mutations.safetensors, lambda path: _checked(formats.read(path))),
    "h5": Kind(mutations.spoiled, lambda path: _checked(formats.read(path))),
    "keras": Kind(mutations.keras_zip, lambda path: _checked(formats.read(path))),
    "card": Kind(mutations.json_text, _read_card),
}


def _forked(command, *, input, capture_output, timeout, env):
    """What `subprocess.run` is to keras_file, the same child without the time it takes to start."""
    with ExitStack() as stack:
        streams = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        streams[0].write(input)
        streams[0].seek(0)
        child = os.fork()
        if not child:
            _be_child(streams, *map(int, command[-2:]))
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        for stream in streams[1:]:
            stream.seek(0)
        return subprocess.CompletedProcess(command, code, *(s.read() for s in streams[1:]))


def _be_child(streams: list, memory: int, seconds: int) -> NoReturn:
    code = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream.fileno(), number)
        code = keras_file._child(memory, seconds)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class Slow(BaseException):
    """More seconds than a file may take; no reader catches it."""


def _watch(folder: Path) -> Callable[[bool], None]:
    """Ends the process at what no reader may do; the result turns that on and off."""
    armed = False
    own = tuple(os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, Path.cwd()))

    def hook(event: str, arguments: tuple) -> None:
        if not armed:
            return
        path = arguments[0] if arguments else None
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if event == "open" and isinstance(path, str):
            place = os.path.realpath(path)
            reads = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) == 0
            bad = not place.startswith((str(folder), *own) if reads else str(folder))
        else:
            bad = event in _RUNS or event in _CHANGES
        if bad:
            os.write(1, f"! {event} {arguments}\n".encode())
            os._exit(70)

    def arm(on: bool) -> None:
        nonlocal armed
        armed = on

    sys.addaudithook(hook)
    return arm


def _outcome(read: Callable[[Path], Any], path: Path) -> str:
    """What became of a file: "loaded", "refused: the sentence", "! " and what went wrong."""
    try:
        read(path)
    except InputError as error:
        said, cause = str(error), error
        while cause is not None:
            if isinstance(cause, MemoryError) or "RESOURCE_EXHAUSTED" in str(cause):
                return f"! refused for want of memory: {error}"
            cause = cause.__context__
        named = path.name in said or path.parent.name in said
        if not named or not said.endswith(".") or not said.isprintable() or len(said) > 1000:
            return f"! not one sentence that names the file: {said!r}"
        return f"refused: {said}"
    except (Exception, Slow) as error:
        return f"! {type(error).__name__}: {str(error)[:300]!r}"
    return "loaded"


def _stop(signal: int, frame: object) -> None:
    raise Slow


def main(kind: str, good: str, first: int, count: int) -> None:
    """Prints what becomes of the damaged files of seeds first to first + count - 1.

    Args:
      kind: a key of `KINDS`.
      good: a file of that kind, beside which the damaged ones are put, and whatever it needs.
    """
    spoil, read = KINDS[kind]
    source, data = Path(good), Path(good).read_bytes()
    path = source.with_stem("damaged") if kind != "card" else source.parent / "net" / "card.json"
    warnings.simplefilter("error")
    keras_file.subprocess = SimpleNamespace(  # pyright: ignore
        run=_forked, TimeoutExpired=subprocess.TimeoutExpired
    )
    tempfile.tempdir = str(source.parent)
    path.write_bytes(data)
    read(path)
    status = Path("/proc/self/status").read_text().split("VmSize:")[1]
    memory = 1024 * int(status.split()[0]) + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _stop)
    arm = _watch(source.parent.resolve())
    for seed in range(first, first + count):
        path.write_bytes(spoil(random.Random(f"{kind} {seed}"), data))
        print(seed, end=" ", flush=True)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)  # where no signal reaches
        arm(True)
        said = _outcome(read, path)
        arm(False)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(said, flush=True)
    faulthandler.cancel_dump_traceback_later()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print("peak", max(_own_peak(), children) // 1024)


def _own_peak() -> int:
    """KiB; what getrusage gives for this process counts what the one that started it held, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
