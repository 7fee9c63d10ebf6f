"""A folder of masks that is never half-written and always resumes.

    config.json         what the masks were made from; another configuration is refused
    masks/mask_id<k>.npy  f32[3,H,W] RGB, as the published evaluator reads them
    metrics.jsonl       a line a person: objective and distance at every step

A batch is done when all its masks and lines are there. Masks appear whole by renaming; lines are
appended after them, and what an interruption left of a line is cut away at the next start.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from opom_jax.errors import InputError


def mask_path(workdir: Path, person: int) -> Path:
    """Where the mask of the person with this number (from 0, in list order) is."""
    return workdir / "masks" / f"mask_id{person}.npy"


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Gives a temporary path that becomes `path` if the block succeeds, and vanishes if not.

    Raises:
      InputError: the file cannot be written (full disk, read-only folder).
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); "
            "make room or choose another --workdir."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


class Store:
    """The masks of one run. Use as a context: it holds the folder against a second process.

    Args:
      workdir: made if needed.
      config: JSON-like; must equal what the folder was started with.

    Raises:
      InputError: another configuration's masks, another process at work, an unwritable folder.
    """

    def __init__(self, workdir: Path, config: dict):
        self.workdir, self.config = workdir, config
        self.recorded: set[int] = set()

    def __enter__(self) -> "Store":
        try:
            (self.workdir / "masks").mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.workdir, os.O_RDONLY)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin()
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, BlockingIOError):
                raise InputError(f"Another process writes to {self.workdir}; wait.") from error
            if isinstance(error, OSError):
                raise self._unusable(error) from error
            raise
        return self

    def __exit__(self, *_) -> None:
        os.close(self._lock)

    def done(self, people: Sequence[int]) -> bool:
        """Whether masks and metrics of all these people are there, and whole."""
        return all(p in self.recorded and _whole(mask_path(self.workdir, p)) for p in people)

    def write(self, people: Sequence[int], masks: np.ndarray, lines: Sequence[dict]) -> None:
        """Stores a batch: masks f32[P,H,W,3], and a JSON-like dict of metrics for each person."""
        for person, mask in zip(people, masks, strict=True):
            with writing(mask_path(self.workdir, person)) as partial, open(partial, "wb") as file:
                np.save(file, np.ascontiguousarray(mask.transpose(2, 0, 1), np.float32))
        text = "".join(
            json.dumps({"id": person} | line) + "\n"
            for person, line in zip(people, lines, strict=True)
            if person not in self.recorded
        )
        try:
            with open(self._metrics, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{self._metrics} cannot be written ({reason}); make room.") from error
        self.recorded.update(people)

    def _unusable(self, error: OSError) -> InputError:
        where = f"{error.filename or self.workdir}: {error.strerror or error}"
        return InputError(f"{self.workdir} cannot be used ({where}); choose another --workdir.")

    @property
    def _metrics(self) -> Path:
        return self.workdir / "metrics.jsonl"

    def _begin(self) -> None:
        path = self.workdir / "config.json"
        if path.exists():
            check_same(path, read_config(self.workdir), self.config)
        elif any((self.workdir / "masks").glob("mask_id*.npy")):
            raise InputError(f"{self.workdir} has masks but no config.json; use another --workdir.")
        else:
            with writing(path) as partial:
                partial.write_text(json.dumps(self.config, indent=1) + "\n")
        for leftover in (self.workdir / "masks").glob(".*.partial"):
            leftover.unlink()
        self._repair()

    def _repair(self) -> None:
        """Keeps the whole lines of metrics.jsonl and cuts the rest away."""
        if not self._metrics.exists():
            return
        kept = 0
        with open(self._metrics, "rb") as file:
            for line in file:
                try:
                    person = json.loads(line)["id"] if line.endswith(b"\n") else None
                except (ValueError, KeyError, TypeError):
                    person = None
                if not isinstance(person, int):
                    break
                self.recorded.add(person)
                kept += len(line)
        if kept < self._metrics.stat().st_size:
            os.truncate(self._metrics, kept)


def read_config(workdir: Path) -> dict:
    """The config.json of a folder of masks; InputError if it is missing or damaged."""
    path = workdir / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{workdir} has no config.json; run generate there first.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read; use another --workdir.") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is no configuration; use another --workdir.")
    return config


def check_same(path: Path, stored: dict, wanted: dict) -> None:
    """Raises InputError that names the keys in which two configurations differ."""
    stored, wanted = _flat(stored), _flat(json.loads(json.dumps(wanted)))
    different = sorted(k for k in stored.keys() | wanted.keys() if stored.get(k) != wanted.get(k))
    if different:
        said = "; ".join(f"{k}: {stored.get(k)!r} there, {wanted.get(k)!r} here" for k in different)
        raise InputError(f"{path} is of another configuration ({said}); use another --workdir.")


def _flat(config: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in config.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def _whole(path: Path) -> bool:
    try:
        return np.lib.format.open_memmap(path, mode="r").shape[:1] == (3,)
    except (OSError, ValueError, EOFError):
        return False


def read_mask(path: Path, size: int) -> np.ndarray:
    """One mask as f32[H,W,3] from a file f32[3,H,W], never unpickled.

    Raises:
      InputError: missing, damaged, of another shape or not finite.
    """
    try:
        mask = np.lib.format.open_memmap(path, mode="r")  # trusts no header, unpickles nothing
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; run generate to its end first.") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no mask file; make it again with generate.") from error
    if mask.shape != (3, size, size) or mask.dtype.kind != "f":
        raise InputError(
            f"{path} holds {mask.dtype}{mask.shape}, wanted float32 (3, {size}, {size}); "
            "set config.data.image_size or make it again."
        )
    if not np.isfinite(mask).all():
        raise InputError(f"{path} holds values that are not finite; make it again.")
    return np.array(mask.transpose(1, 2, 0), np.float32)
