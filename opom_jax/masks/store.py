"""A folder of masks that is never half-written and always resumes.

    config.json         what the masks were made from; another configuration is refused
    masks/mask_id<k>.npy  f32[3,H,W] RGB, as the published evaluator reads them; mask_id<k>_<m>.npy
                        where config.json has a number of "diverse" masks
    metrics.jsonl       a line a person: objective and distance at every step; metrics-<i>.jsonl of
                        process i of several

A person is done when all their masks and their line are there. Masks appear whole by renaming;
lines are appended after them, and what an interruption left of a line is cut away at the next
start.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from opom_jax import files
from opom_jax.errors import InputError
from opom_jax.parallel import WHOLE, Share

SLACK = 1e-3  # beyond epsilon, 0..255 scale: rounding


def mask_path(workdir: Path, person: int) -> Path:
    """Where the mask of the person with this number (from 0, in list order) is."""
    return workdir / "masks" / f"mask_id{person}.npy"


def mask_paths(workdir: Path, person: int, diverse: int = 0) -> list[Path]:
    """Where all masks of a person are: the one, or as many diverse ones."""
    if not diverse:
        return [mask_path(workdir, person)]
    return [workdir / "masks" / f"mask_id{person}_{m}.npy" for m in range(diverse)]


def epsilon_of(config: dict) -> float:
    """The largest change of a pixel, 0..255, in a run's configuration; infinite if it has none."""
    settings = config.get("settings")
    epsilon = settings.get("epsilon") if isinstance(settings, dict) else None
    return epsilon if isinstance(epsilon, int | float) else math.inf


def journals(workdir: Path) -> list[Path]:
    """The journals of all processes that worked there."""
    return sorted(workdir.glob("metrics*.jsonl"))


class Store:
    """The masks of one run. Use as a context: it holds the folder against a second process, or
    against one that has the same share.

    Args:
      workdir: made if needed.
      config: JSON-like, with the number of "people" and the "image_size"; must equal what the
        folder was started with.
      share: of this process.
      decided: see `files.begin`.
      agrees: whether a line of the journal is of the same photos.

    Attributes:
      config: what the folder was started with.
      recorded: bool[P], who has a line.

    Raises:
      InputError: another configuration's masks, another process at work, an unwritable folder.
    """

    def __init__(
        self,
        workdir: Path,
        config: dict,
        share: Share = WHOLE,
        decided: Sequence[str] = (),
        agrees: Callable[[dict], bool] = lambda line: True,
    ):
        self.workdir, self.config, self.decided, self.agrees = workdir, config, decided, agrees
        alone = share.count == 1
        self.part = "" if alone else f"process-{share.index}"
        self.journal = workdir / ("metrics.jsonl" if alone else f"metrics-{share.index}.jsonl")
        self.recorded = np.zeros(config["people"], bool)

    def __enter__(self) -> "Store":
        with ExitStack() as stack:
            stack.enter_context(files.held(self.workdir, self.part))
            try:
                (self.workdir / "masks").mkdir(exist_ok=True)
                self._begin()
                own = self.workdir / "config.json"  # holds against other machines too
                stack.enter_context(files.locked(own, shared=bool(self.part)))
                self._look()
            except OSError as error:
                raise files.unusable(self.workdir, error) from error
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self._held.close()

    def done(self, people: Sequence[int]) -> bool:
        """Whether masks and metrics of all these people are there, and whole."""
        return all(self.recorded[p] and all(map(self._whole, self._paths(p))) for p in people)

    def write(self, people: Sequence[int], masks: np.ndarray, lines: Sequence[dict]) -> None:
        """Stores a batch: masks f32[P,H,W,3], diverse ones f32[P,M,H,W,3], and a JSON-like dict of
        metrics for each person; InputError without room, ValueError for a metric that is not
        finite."""
        paths = [path for person in people for path in self._paths(person)]
        for path, mask in zip(paths, masks.reshape(-1, *masks.shape[-3:]), strict=True):
            with files.writing(path, self.part) as partial, open(partial, "wb") as file:
                np.save(file, np.ascontiguousarray(mask.transpose(2, 0, 1), np.float32))
        new = [
            {"id": person} | line
            for person, line in zip(people, lines, strict=True)
            if not self.recorded[person]
        ]
        files.append(self.journal, new)
        self.recorded[list(people)] = True

    def _whole(self, path: Path) -> bool:
        try:
            read_mask(path, self.config["image_size"], epsilon_of(self.config))
        except InputError:
            return False
        return True

    def _paths(self, person: int) -> list[Path]:
        return mask_paths(self.workdir, person, self.config.get("diverse", 0))

    def _begin(self) -> None:
        masks = self.workdir / "masks"
        found = any(masks.glob("mask_id*.npy"))  # first: others may be at work, whose masks come
        if found and not (self.workdir / "config.json").exists():  # after config.json
            raise InputError(f"{self.workdir} has masks but no config.json; use another --workdir.")
        self.config = files.begin(self.workdir, self.config, self.part, self.decided)

    def _look(self) -> None:
        """Finds out who is done."""
        if not self.part:  # else they may be another's, who is at work
            for leftover in (self.workdir / "masks").glob(".*.partial"):
                leftover.unlink()
        for path in journals(self.workdir):
            own = not self.part or path == self.journal  # who is alone mends what others left
            for line in files.journal(path, self._has_number, mend=own):
                if not self.agrees(line):
                    raise InputError(
                        f"The photos of {line.get('name')} are not those of which {path} says that "
                        "a mask was made; use another --workdir."
                    )
                self.recorded[line["id"]] = True

    def _has_number(self, line: dict) -> bool:
        person = line.get("id")
        return type(person) is int and 0 <= person < len(self.recorded)


def read_mask(path: Path, size: int, epsilon: float = math.inf) -> np.ndarray:
    """One mask as f32[H,W,3] from a file f32[3,H,W], never unpickled.

    Raises:
      InputError: missing, damaged, of another shape, not finite or beyond epsilon.
    """
    try:
        mask = np.lib.format.open_memmap(path, mode="r")  # trusts no header, unpickles nothing
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; run generate to its end first.") from error
    except Exception as error:  # a header is parsed as Python, which fails in many ways
        raise InputError(f"{path} is no mask file; make it again with generate.") from error
    if mask.shape != (3, size, size) or mask.dtype.kind != "f":
        raise InputError(
            f"{path} holds {mask.dtype}{mask.shape}, wanted float32 (3, {size}, {size}); "
            "set config.data.image_size or make it again."
        )
    if not np.isfinite(mask).all():
        raise InputError(f"{path} holds values that are not finite; make it again.")
    if (most := np.abs(mask).max()) > epsilon + SLACK:
        raise InputError(
            f"{path} changes pixels by up to {most:.6g}, more than the epsilon={epsilon:g} of its "
            "config.json; make it again with generate."
        )
    return np.array(mask.transpose(1, 2, 0), np.float32)
