"""Pairs of photos for 1:1 verification: of one person or of two.

Lists come in two formats. "path": two paths and 1 (one person) or 0 (two people), separated by
white space. "lfw", the form of LFW's pairs.txt and pairsDevTest.txt: a first line of one or two
numbers, then `name n1 n2` (one person) or `name1 n1 name2 n2` (two), where photo 7 of a name is
name/name_0007.jpg, or .png where there is no .jpg.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opom_jax.data.lists import StrPath, photo, read_lines
from opom_jax.data.people import Person
from opom_jax.errors import InputError

_Entry = tuple[str, str, bool]


class Pairs(NamedTuple):
    """K pairs.

    Attributes:
      photos: every photo of the pairs, each once.
      first, second: i64[K], places in `photos`.
      same: bool[K], whether they show one person.
      where: the line of each pair, as errors name it.
    """

    photos: tuple[Path, ...]
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    where: tuple[str, ...]


def read_pairs(path: StrPath, root: StrPath, pairs_format: str = "path") -> Pairs:
    """The pairs of a list, in its order.

    Args:
      path: UTF-8 text, one pair a line, blank lines ignored.
      root: the folder that the photos' paths are relative to.
      pairs_format: "path" or "lfw".

    Raises:
      InputError: an unknown format, an unreadable list, a bad line or missing photo (by list and
        line), no pair of one person or none of two.
    """
    if pairs_format not in PAIRS_FORMATS:
        known = ", ".join(PAIRS_FORMATS)
        raise InputError(f"pairs_format is {pairs_format!r}; give one of {known}.")
    places: dict[Path, int] = {}
    pairs, lines = [], []
    for number, (where, text) in enumerate(read_lines(path)):
        columns = text.split()
        if number == 0 and pairs_format == "lfw" and len(columns) < 3:
            continue  # how many folds and pairs
        *two, same = PAIRS_FORMATS[pairs_format](columns, root, where)
        photos = (photo(root, entry, where) for entry in two)
        pairs.append([*(places.setdefault(one, len(places)) for one in photos), same])
        lines.append(where)
    first, second, same = np.array(pairs, np.int64).reshape(-1, 3).T
    for kind, count in (("one person", same.sum()), ("two people", (1 - same).sum())):
        if not count:
            raise InputError(f"{str(path)!r} has no pairs of {kind}; add some.")
    return Pairs(tuple(places), first, second, same.astype(bool), tuple(lines))


def owners(pairs: Pairs, people: Sequence[Person]) -> dict[int, int]:
    """Place in `photos` of every first photo -> number of the person that it shows.

    That is the person who has this very file among their photos, or else who is called like the
    file's folder.

    Raises:
      InputError: the first line whose first photo is of none of the people.
    """
    files = {
        os.path.realpath(own): k
        for k, person in enumerate(people)
        for own in (*person.train, *person.probes)
    }
    names = {person.name: k for k, person in enumerate(people)}
    found = {}
    for place, where in zip(pairs.first.tolist(), pairs.where, strict=True):
        path = pairs.photos[place]
        owner = files.get(os.path.realpath(path), names.get(path.parent.name))
        if owner is None:
            raise InputError(
                f"{where}: the first photo, {str(path)!r}, is of none of the {len(people)} people, "
                "so no mask is for it; leave the line out or put a photo of one of them first."
            )
        found[place] = owner
    return found


def _path_entry(columns: list[str], root: StrPath, where: str) -> _Entry:
    if len(columns) != 3 or columns[2] not in ("0", "1"):
        raise InputError(f"{where} is not two paths and 1 or 0; mend it or set pairs_format.")
    return columns[0], columns[1], columns[2] == "1"


def _lfw_entry(columns: list[str], root: StrPath, where: str) -> _Entry:
    same = len(columns) == 3
    numbers = columns[1:] if same else columns[1::2]
    if len(columns) not in (3, 4) or not all(n.isdecimal() and len(n) < 10 for n in numbers):
        raise InputError(f"{where} is not 'name n1 n2' or 'name1 n1 name2 n2'; mend it.")
    names = columns[0], columns[0 if same else 2]
    one, two = (_lfw_path(root, name, int(n)) for name, n in zip(names, numbers, strict=True))
    return one, two, same


def _lfw_path(root: StrPath, name: str, number: int) -> str:
    names = [f"{name}/{name}_{number:04d}{suffix}" for suffix in (".jpg", ".png")]
    return next((own for own in names if os.path.isfile(Path(root, own))), names[0])


PAIRS_FORMATS: dict[str, Callable[[list[str], StrPath, str], _Entry]] = {
    "path": _path_entry,
    "lfw": _lfw_entry,
}
