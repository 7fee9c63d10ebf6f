"""Who the people are and which of their photos make and test a mask.

Photos come from a folder with a sub-folder per person, or from list files as published with OPOM:
one path a line, the photos of a person on consecutive lines. Nothing is decoded here.
"""

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple, Self, TypeVar, overload

import numpy as np

from opom_jax.data.lists import StrPath, read_list, unreadable
from opom_jax.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})

BLOCK = 64  # packed together

T = TypeVar("T")


class Person(NamedTuple):
    """One person: `train` photos make the mask, `probes` test it."""

    name: str
    train: tuple[Path, ...]
    probes: tuple[Path, ...]


class Packed(Sequence[T]):
    """Anything with paths in little memory: tens of bytes each, so that there may be millions of
    photos. It is unpacked when it is looked at."""

    def __init__(self, entries: Iterable[T]):
        lines, self._blocks, self._count = map(self._line, entries), [], 0
        while block := list(islice(lines, BLOCK)):
            self._blocks.append(zlib.compress("\n".join(block).encode()))
            self._count += len(block)
        self._lines = lru_cache(2)(lambda block: zlib.decompress(self._blocks[block]).split(b"\n"))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, which: int) -> T: ...
    @overload
    def __getitem__(self, which: slice) -> Self: ...
    def __getitem__(self, which):
        if isinstance(which, slice):
            return type(self)(self[k] for k in range(*which.indices(len(self))))
        block, line = divmod(range(self._count)[which], BLOCK)
        return self._entry(self._lines(block)[line])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    @staticmethod
    def _line(entry: T) -> str:
        """It as text without line ends."""
        raise NotImplementedError

    @staticmethod
    def _entry(line: bytes) -> T:
        """It again."""
        raise NotImplementedError


class People(Packed[Person]):
    """People, packed."""

    @staticmethod
    def _line(entry: Person) -> str:
        photos = (list(map(str, own)) for own in (entry.train, entry.probes))
        return json.dumps([entry.name, *photos])

    @staticmethod
    def _entry(line: bytes) -> Person:
        name, train, probes = json.loads(line)
        return Person(name, tuple(map(Path, train)), tuple(map(Path, probes)))


class Paths(Packed[Path]):
    """Paths of photos, packed."""

    @staticmethod
    def _line(entry: Path) -> str:
        return json.dumps(str(entry))

    @staticmethod
    def _entry(line: bytes) -> Path:
        return Path(json.loads(line))


def from_folder(folder: StrPath, train_per_person: int, limit: int = 0) -> People:
    """People of a folder that has one sub-folder per person.

    Names and photos come in sorted order; hidden entries and files without one of `SUFFIXES` are
    ignored. A person's first `train_per_person` photos train, the rest (if any) are probes.

    Args:
      folder: the folder of the sub-folders; both may be links.
      train_per_person: 0 or more.
      limit: the number of people to take, 0 for all.

    Raises:
      InputError: no people, a person without photos, an unreadable folder, a negative count.
    """
    _check_counts(train_per_person=train_per_person, limit=limit)
    names = [name for name in _visible(folder) if os.path.isdir(os.path.join(folder, name))]
    if not names:
        raise InputError(f"{str(folder)!r} has no sub-folders; give each person one.")
    own = (Path(folder, name) for name in names[: limit or None])  # paths take ten times as much
    return People(_of_folder(folder, train_per_person) for folder in own)


def _of_folder(folder: Path, train_per_person: int) -> Person:
    photos = tuple(_photos(_entries(folder)))
    if not photos:
        raise InputError(f"{str(folder)!r} has no photos; add some or remove the folder.")
    return Person(folder.name, photos[:train_per_person], photos[train_per_person:])


def from_lists(
    root: StrPath,
    train_list: StrPath,
    train_per_person: int,
    test_list: StrPath = "",
    test_per_person: int = 0,
    list_format: str = "path",
    limit: int = 0,
) -> People:
    """People of a training list and, paired with it by position, a test list.

    A person is named after the folder of their first training photo, or `<index>_<folder>`
    (`00007_celebs`) for everybody if two people would share a name.

    Args:
      root: the folder that the paths in the lists are relative to.
      train_list, test_list: UTF-8 text, one path a line, blank lines ignored; no probes without
        a `test_list`.
      train_per_person, test_per_person: person k has lines [k * n, (k + 1) * n); with 0, a person
        is a run of consecutive lines in the same folder.
      list_format: "path" (the whole line) or "megaface" (the second column).
      limit: the number of people to take, 0 for all.

    Raises:
      InputError: an unreadable or empty list, a bad line or missing photo (by list and line),
        line counts that do not divide into people, lists of different numbers of people or of the
        same people in another order, a photo in both lists.
    """
    _check_counts(train_per_person=train_per_person, test_per_person=test_per_person, limit=limit)
    train = _of_list(train_list, root, list_format, train_per_person)
    names = _names(train)
    if not test_list:
        named = (own._replace(name=name) for own, name in zip(train, names, strict=True))
        return People(islice(named, limit or None))
    tests = _of_list(test_list, root, list_format, test_per_person)
    if len(train) != len(tests):
        raise InputError(
            f"{str(train_list)!r} has {len(train)} people but {str(test_list)!r} has "
            f"{len(tests)}; give lists of the same people and their photos per person."
        )
    _check_pairs(train, tests, str(test_list))
    pairs = zip(names, train, tests, strict=True)
    people = (Person(name, own.train, test.train) for name, own, test in pairs)
    return People(islice(people, limit or None))


def flat_images(folder_or_list: StrPath, root: StrPath = "", list_format: str = "path") -> Paths:
    """Images without people, such as distractors; there may be millions.

    Args:
      folder_or_list: a folder, searched through sub-folders and links and sorted by path, or a
        list file as in `from_lists`, kept in its order.
      root, list_format: for a list, as in `from_lists`.

    Raises:
      InputError: no images, an unreadable folder or list, a bad line or missing image.
    """
    if not os.path.isdir(folder_or_list):
        return Paths(read_list(folder_or_list, root, list_format))
    found = Paths(_below(Path(folder_or_list)))
    if not found:
        raise InputError(f"{str(folder_or_list)!r} has no images; give a folder that has some.")
    return found


def _below(folder: Path) -> Iterator[Path]:
    """The images of a folder and of those in it, each folder once, sorted by path."""
    entries, seen = [iter([folder])], set()
    while entries:
        entry = next(entries[-1], None)
        if entry is None:
            entries.pop()
        elif os.path.isdir(entry):
            if (real := os.path.realpath(entry)) not in seen:  # a link may lead back up
                seen.add(real)
                entries.append(iter(_entries(entry)))
        elif entry.suffix.lower() in SUFFIXES:
            yield entry


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 0:
            raise InputError(f"{name} is {count}; give 0 or more.")


def _entries(folder: Path) -> list[Path]:
    """The visible entries of a folder, by name."""
    return [folder / name for name in _visible(folder)]


def _visible(folder: StrPath) -> list[str]:
    """Their names, sorted."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise unreadable(folder, "folder", error) from error


def _photos(entries: Sequence[Path]) -> list[Path]:
    # Not isfile: a dangling link named as a photo is for the reader to refuse, not to pass over.
    return [e for e in entries if e.suffix.lower() in SUFFIXES and not os.path.isdir(e)]


def _of_list(path: StrPath, root: StrPath, list_format: str, per_person: int) -> People:
    """The people of a list, without names, all their photos in `train`."""
    photos = read_list(path, root, list_format)
    return People(Person("", own, ()) for own in _grouped(path, photos, per_person))


def _grouped(path: StrPath, photos: Iterator[Path], per_person: int) -> Iterator[tuple[Path, ...]]:
    """The photos of a list by person."""
    if per_person == 0:
        yield from (tuple(own) for _, own in groupby(photos, key=lambda photo: photo.parent))
        return
    count = 0
    while own := tuple(islice(photos, per_person)):
        count += len(own)
        if len(own) == per_person:
            yield own
    if count % per_person:
        raise InputError(
            f"{str(path)!r} has {count} photos, not a multiple of {per_person}; mend the "
            f"list or the number of photos per person."
        )


def _check_pairs(train: People, tests: People, test_list: str) -> None:
    """Refuses what shows that person k of one list is not person k of the other."""
    ours, theirs = ([own.train[0].parent.name for own in people] for people in (train, tests))
    if set(ours) == set(theirs) and ours != theirs:
        wrong = next(k for k, pair in enumerate(zip(ours, theirs, strict=True)) if len({*pair}) > 1)
        raise InputError(
            f"Person {wrong} is {ours[wrong]!r} in the training list and {theirs[wrong]!r} in "
            f"{test_list!r}; give both lists the same order."
        )
    again = np.flatnonzero(np.isin(_hashes(tests), _hashes(train)))
    if len(again):
        photo = next(islice(_every_photo(tests), int(again[0]), None))
        raise InputError(
            f"{test_list!r} names {str(photo)!r}, a training photo; test masks on other photos."
        )


def _every_photo(people: People) -> Iterator[Path]:
    return (photo for own in people for photo in own.train)


def _hashes(people: People) -> np.ndarray:
    """i64[photos], 64 bits of each: a set of the paths would take a hundred times as much."""
    return np.fromiter((hash(photo) for photo in _every_photo(people)), np.int64)


def _names(people: People) -> list[str]:
    """A unique name per person, a plain file name even if a path goes through "." or ".."."""
    folders = [os.path.basename(os.path.abspath(own.train[0].parent)) for own in people]
    if len(set(folders)) == len(folders):
        return folders
    return [f"{index:05d}_{folder}" for index, folder in enumerate(folders)]
