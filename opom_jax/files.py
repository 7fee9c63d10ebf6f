"""Folders of results that are never half-written: files whole or not at all, one process at a time.

A run's folder holds `config.json` (what the run is; another configuration is refused) and
`metrics.jsonl` (a journal, whole lines of which survive any interruption). What outlives runs is in
the user's cache folder.
"""

import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from opom_jax.errors import InputError

ELSEWHERE = "choose another --workdir"


def cache_folder() -> Path:
    """Where compiled programs, features and fetched networks are kept: the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opom-jax"


def private_folder(folder: Path) -> bool:
    """Makes a folder for this user alone; False if that cannot be had.

    The compilation cache runs what it finds, so nobody else may be able to write there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
    except OSError:
        return False
    return state.st_uid == os.getuid() and not state.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


@contextmanager
def writing(
    path: Path, part: str = "", first: bool = False, mend: str = ELSEWHERE
) -> Iterator[Path]:
    """Gives a temporary path that becomes `path` if the block succeeds, and vanishes if not.

    Args:
      path: of the file.
      part: of the work (see `held`), each of which has a temporary path of its own.
      first: whether a file that is there by then stays.
      mend: what else than making room helps.

    Raises:
      InputError: the file cannot be written (full disk, read-only folder).
    """
    partial = _partial(path, part)
    try:
        yield partial
        if first:
            _become(partial, path)
        else:
            os.replace(partial, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); make room or {mend}."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _partial(path: Path, part: str) -> Path:
    return path.with_name(".".join(("", path.name, *filter(None, [part]), "partial")))


def _become(partial: Path, path: Path) -> None:
    """Renames unless the file is there, in one step where the folder has hard links."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:
        if not path.exists():
            os.replace(partial, path)


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder that becomes `folder` if the block succeeds, and vanishes if not;
    those that killed processes left are removed first. OSError passes."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):
        if not _works(left.suffixes[-2].removeprefix(".")):
            shutil.rmtree(left)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def making_file(path: Path) -> Iterator[Path]:
    """The same of a file, which any number of processes may make at once."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        if not _works(left.suffixes[-2].removeprefix(".")):
            left.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


def _works(process: str) -> bool:
    """Whether another process of this number lives; True for what is no number."""
    if process == str(os.getpid()):
        return False  # an earlier process of this number left it
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (PermissionError, ValueError):
        return True
    return True


@contextmanager
def held(workdir: Path, part: str = "") -> Iterator[None]:
    """Makes a folder if needed and holds it against a second process; with the name of a part of
    the work, only against one that does all of it or the same part.

    Raises:
      InputError: another process holds it, or it cannot be made.
    """
    with ExitStack() as locks:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(workdir, error) from error
        locks.enter_context(locked(workdir, shared=bool(part)))
        if part:
            locks.enter_context(locked(workdir / f".{part}.lock", place=f" as {part}"))
        yield


@contextmanager
def locked(path: Path, shared: bool = False, place: str = "") -> Iterator[None]:
    """Locks a folder, or a file that is made if needed, until the process lets go or dies; shared
    locks go together. On a network only files' locks hold against other machines. The refusal
    names the place after the folder.

    Raises:
      InputError: another process has a lock that does not go together with this one, or it cannot
        be opened.
    """
    folder = path if path.is_dir() else path.parent
    try:
        lock = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise unusable(folder, error) from error
    try:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"Another process writes to {folder}{place}; wait.") from error
        except OSError as error:
            raise unusable(folder, error) from error
        yield
    finally:
        os.close(lock)


def unusable(workdir: Path, error: OSError, mend: str = ELSEWHERE) -> InputError:
    """The sentence for a folder in which something cannot be made or read, and the mend."""
    where = f"{error.filename or workdir}: {error.strerror or error}"
    return InputError(f"{workdir} cannot be used ({where}); {mend}.")


def begin(workdir: Path, config: dict, part: str = "", decided: Sequence[str] = ()) -> dict:
    """Writes config.json, or compares it with the one that is there.

    Args:
      workdir: of the run.
      config: JSON-like.
      part: as for `held`; of several processes the first to come writes the file.
      decided: keys, positive numbers, in which the file that is there overrules `config`.

    Returns:
      What the file holds, numbers that are `decided` as integers.

    Raises:
      InputError: another configuration (by its keys), a damaged file, no room.
    """
    path = workdir / "config.json"
    if not path.exists():
        with writing(path, part, first=True) as partial:
            partial.write_text(json.dumps(config, indent=1) + "\n")
    with suppress(OSError):
        _partial(path, part).unlink()  # of a process that died when the file was there already
    return agreed(workdir, config, decided)


def agreed(workdir: Path, config: dict, decided: Sequence[str] = ()) -> dict:
    """The config.json of a folder, compared with a configuration; all of it as in `begin`."""
    stored = read_config(workdir)
    found = {key: stored.get(key) for key in decided}
    config = config | {k: v for k, v in found.items() if type(v) is int and v > 0}
    check_same(workdir / "config.json", stored, config)
    return stored | {key: config[key] for key in decided}  # 3.0 is as good as 3, but no number


def read_config(workdir: Path) -> dict:
    """The config.json of a run's folder; InputError if it is missing or damaged."""
    path = workdir / "config.json"
    try:
        config = json.loads(path.read_text())
        if not isinstance(config, dict):
            raise ValueError("no JSON object")
    except FileNotFoundError as error:
        raise InputError(f"{workdir} has no config.json; run generate there first.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read, so nothing says what is beside it; use another --workdir."
        ) from error
    return config


def check_same(path: Path, stored: dict, wanted: dict) -> None:
    """Raises InputError that names the keys in which two configurations differ; of a digest it
    shows the beginning."""
    stored, wanted = _flat(stored), _flat(json.loads(json.dumps(wanted)))
    different = sorted(k for k in stored.keys() | wanted.keys() if stored.get(k) != wanted.get(k))
    if different:
        said = "; ".join(f"{k}: {stored.get(k)!r} there, {wanted.get(k)!r} here" for k in different)
        said = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", said)
        raise InputError(f"{path} is of another configuration ({said}); use another --workdir.")


def _flat(config: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in config.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def journal(path: Path, good: Callable[[dict], bool], mend: bool = True) -> Iterator[dict]:
    """The lines of a journal up to the first that is cut, no JSON object or not `good`. If they are
    all taken and it is to be mended, that one and all after it are cut away. No lines if there is
    no file; OSError passes."""
    if not path.exists():
        return
    kept = 0
    with open(path, "rb") as file:
        for line in file:
            try:
                whole = line.endswith(b"\n")
                entry = json.loads(line, parse_constant=_no_json) if whole else None
            except (ValueError, RecursionError):
                entry = None
            if not isinstance(entry, dict) or not good(entry):
                break
            yield entry
            kept += len(line)
    if mend and kept < path.stat().st_size:
        os.truncate(path, kept)


def _no_json(constant: str) -> None:
    """For NaN and infinities, which Python writes and reads but JSON does not have."""
    raise ValueError(f"{constant} is no JSON")


def append(path: Path, lines: Iterable[dict]) -> None:
    """Adds lines to a journal; InputError if there is no room for them, ValueError if a number is
    not finite."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be written ({reason}); make room.") from error


def content_sha256(folder: Path) -> str:
    """SHA-256 (hex) over the names, sizes and bytes of all files below a folder, or of a file."""
    sha = hashlib.sha256()
    below = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    for path in filter(Path.is_file, below):
        content = path.read_bytes()
        sha.update(f"{path.relative_to(folder).as_posix()}:{len(content)};".encode())
        sha.update(content)
    return sha.hexdigest()
