"""Who the people are and which of their photos make and test a mask.

Photos come from a folder with a sub-folder per person, or from list files as published with OPOM:
one path a line, the photos of a person on consecutive lines. Nothing is decoded here.
"""

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from opom_jax.data.lists import StrPath, read_list, unreadable
from opom_jax.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})


class Person(NamedTuple):
    """One person: `train` photos make the mask, `probes` test it."""

    name: str
    train: tuple[Path, ...]
    probes: tuple[Path, ...]


def from_folder(folder: StrPath, train_per_person: int, limit: int = 0) -> list[Person]:
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
    folders = [entry for entry in _entries(Path(folder)) if os.path.isdir(entry)]
    if not folders:
        raise InputError(f"{str(folder)!r} has no sub-folders; give each person one.")
    people = []
    for own in folders[: limit or None]:
        photos = tuple(_photos(_entries(own)))
        if not photos:
            raise InputError(f"{str(own)!r} has no photos; add some or remove the folder.")
        people.append(Person(own.name, photos[:train_per_person], photos[train_per_person:]))
    return people


def from_lists(
    root: StrPath,
    train_list: StrPath,
    train_per_person: int,
    test_list: StrPath = "",
    test_per_person: int = 0,
    list_format: str = "path",
    limit: int = 0,
) -> list[Person]:
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
    train = _grouped(train_list, read_list(train_list, root, list_format), train_per_person)
    probes: list[tuple[Path, ...]] = [()] * len(train)
    if test_list:
        probes = _grouped(test_list, read_list(test_list, root, list_format), test_per_person)
    if len(train) != len(probes):
        raise InputError(
            f"{str(train_list)!r} has {len(train)} people but {str(test_list)!r} has "
            f"{len(probes)}; give lists of the same people and their photos per person."
        )
    if test_list:
        _check_pairs(train, probes, str(test_list))
    people = [Person(*person) for person in zip(_names(train), train, probes, strict=True)]
    return people[: limit or None]


def flat_images(
    folder_or_list: StrPath, root: StrPath = "", list_format: str = "path"
) -> list[Path]:
    """Images without people, such as distractors.

    Args:
      folder_or_list: a folder, searched through sub-folders and links and sorted by path, or a
        list file as in `from_lists`, kept in its order.
      root, list_format: for a list, as in `from_lists`.

    Raises:
      InputError: no images, an unreadable folder or list, a bad line or missing image.
    """
    if not os.path.isdir(folder_or_list):
        return read_list(folder_or_list, root, list_format)
    found: list[Path] = []
    folders, seen = [Path(folder_or_list)], set()
    while folders:
        folder = folders.pop()
        if (real := os.path.realpath(folder)) in seen:  # a link may lead back up
            continue
        seen.add(real)
        entries = _entries(folder)
        found += _photos(entries)
        folders += filter(os.path.isdir, entries)
    if not found:
        raise InputError(f"{str(folder_or_list)!r} has no images; give a folder that has some.")
    return sorted(found)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 0:
            raise InputError(f"{name} is {count}; give 0 or more.")


def _entries(folder: Path) -> list[Path]:
    """The visible entries of a folder, by name."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise unreadable(folder, "folder", error) from error


def _photos(entries: Sequence[Path]) -> list[Path]:
    # Not isfile: a dangling link named as a photo is for the reader to refuse, not to pass over.
    return [e for e in entries if e.suffix.lower() in SUFFIXES and not os.path.isdir(e)]


def _grouped(path: StrPath, photos: list[Path], per_person: int) -> list[tuple[Path, ...]]:
    """The photos of a list by person."""
    if per_person == 0:
        return [tuple(own) for _, own in groupby(photos, key=lambda photo: photo.parent)]
    if len(photos) % per_person:
        raise InputError(
            f"{str(path)!r} has {len(photos)} photos, not a multiple of {per_person}; mend the "
            f"list or the number of photos per person."
        )
    return [tuple(photos[k : k + per_person]) for k in range(0, len(photos), per_person)]


def _check_pairs(
    train: list[tuple[Path, ...]], probes: list[tuple[Path, ...]], test_list: str
) -> None:
    """Refuses what shows that person k of one list is not person k of the other."""
    ours, theirs = ([photos[0].parent.name for photos in people] for people in (train, probes))
    if set(ours) == set(theirs) and ours != theirs:
        wrong = next(k for k, pair in enumerate(zip(ours, theirs, strict=True)) if len({*pair}) > 1)
        raise InputError(
            f"Person {wrong} is {ours[wrong]!r} in the training list and {theirs[wrong]!r} in "
            f"{test_list!r}; give both lists the same order."
        )
    seen = {photo for photos in train for photo in photos}
    again = [photo for photos in probes for photo in photos if photo in seen]
    if again:
        raise InputError(
            f"{test_list!r} names {str(again[0])!r}, a training photo; test masks on other photos."
        )


def _names(people: list[tuple[Path, ...]]) -> list[str]:
    """A unique name per person, a plain file name even if a path goes through "." or ".."."""
    folders = [os.path.basename(os.path.abspath(photos[0].parent)) for photos in people]
    if len(set(folders)) == len(folders):
        return folders
    return [f"{index:05d}_{folder}" for index, folder in enumerate(folders)]
