"""Pairs of photos for 1:1 verification: of one person or of two.

Lists come in two formats. "path": two paths and 1 (one person) or 0 (two people), separated by
white space. "lfw", the form of LFW's pairs.txt and pairsDevTest.txt: a first line of one or two
numbers (folds, if there are any, and pairs of each kind), then `name n1 n2` (one person) or
`name1 n1 name2 n2` (two), where photo 7 of a name is name/name_0007.jpg, or .png where there is no
.jpg. A pair that is listed twice counts twice.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
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
        line), a photo paired with itself, a pair with both labels, another number of pairs than
        LFW's first line says, no pair of one person or none of two.
    """
    if pairs_format not in PAIRS_FORMATS:
        known = ", ".join(PAIRS_FORMATS)
        raise InputError(f"pairs_format is {pairs_format!r}; give one of {known}.")
    places: dict[Path, int] = {}
    labels: dict[frozenset[int], bool] = {}
    pairs, lines = [], []
    for where, *photos, same in _entries(path, root, pairs_format):
        if len({os.path.realpath(one) for one in photos}) < 2:
            raise InputError(f"{where} pairs a photo with itself; name two photos.")
        own = [places.setdefault(one, len(places)) for one in photos]
        if labels.setdefault(frozenset(own), same) != same:
            raise InputError(f"{where} is an earlier pair with another label; remove one of them.")
        pairs.append([*own, same])
        lines.append(where)
    first, second, same = np.array(pairs, np.int64).reshape(-1, 3).T
    for kind, count in (("one person", same.sum()), ("two people", (1 - same).sum())):
        if not count:
            raise InputError(f"{str(path)!r} has no pairs of {kind}; add some.")
    return Pairs(tuple(places), first, second, same.astype(bool), tuple(lines))


def _entries(
    path: StrPath, root: StrPath, pairs_format: str
) -> Iterator[tuple[str, Path, Path, bool]]:
    """(where it is, two photos, label) of each line; their number is checked at the end."""
    announced, count = None, 0
    for number, (where, text) in enumerate(read_lines(path)):
        columns = text.split()
        if number == 0 and pairs_format == "lfw" and len(columns) < 3 and _numbers(columns):
            announced = 2 * math.prod(map(int, columns))
            continue
        one, two, same = PAIRS_FORMATS[pairs_format](columns, root, where)
        yield where, photo(root, one, where), photo(root, two, where), same
        count += 1
    if announced not in (None, count):
        raise InputError(
            f"{str(path)!r} has {count} pairs, not the {announced} of its first line; fetch it "
            "again, or remove that line."
        )


def owners(pairs: Pairs, people: Sequence[Person]) -> dict[int, int]:
    """Place in `photos` of every first photo -> number of the person that it shows.

    That is the person who has this very file among their photos, or else who is called like the
    file's folder.

    Raises:
      InputError: the first line whose first photo is of none of the people, or whose label is not
        what the people say.
    """
    files = {
        os.path.realpath(own): k
        for k, person in enumerate(people)
        for own in (*person.train, *person.probes)
    }
    names = {person.name: k for k, person in enumerate(people)}
    whose = [files.get(os.path.realpath(p), names.get(p.parent.name)) for p in pairs.photos]
    found = {}
    columns = (pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist(), pairs.where)
    for place, other, same, where in zip(*columns, strict=True):
        owner, second = whose[place], whose[other]
        if owner is None:
            raise InputError(
                f"{where}: the first photo, {str(pairs.photos[place])!r}, is of none of the "
                f"{len(people)} people, so no mask is for it; leave the line out or put a photo of "
                "one of them first."
            )
        if second is not None and same != (owner == second):
            raise _wrong_label(where, same, people[owner].name, people[second].name)
        found[place] = owner
    return found


def _wrong_label(where: str, same: bool, one: str, two: str) -> InputError:
    said, shown = ("one person", f"{one} and {two}") if same else ("two people", one)
    return InputError(f"{where} says {said}, but its photos are of {shown}; mend its label.")


def _path_entry(columns: list[str], root: StrPath, where: str) -> _Entry:
    if len(columns) != 3 or columns[2] not in ("0", "1"):
        raise InputError(
            f"{where} is not two paths without spaces and 1 or 0; mend it or set pairs_format."
        )
    return columns[0], columns[1], columns[2] == "1"


def _lfw_entry(columns: list[str], root: StrPath, where: str) -> _Entry:
    same = len(columns) == 3
    numbers = columns[1:] if same else columns[1::2]
    if len(columns) not in (3, 4) or not _numbers(numbers):
        raise InputError(
            f"{where} is not 'name n1 n2' or 'name1 n1 name2 n2'; mend it or set pairs_format."
        )
    names = columns[0], columns[0 if same else 2]
    one, two = (_lfw_path(root, name, int(n)) for name, n in zip(names, numbers, strict=True))
    return one, two, same


def _numbers(columns: list[str]) -> bool:
    return all(column.isdecimal() and len(column) < 10 for column in columns)


def _lfw_path(root: StrPath, name: str, number: int) -> str:
    names = [f"{name}/{name}_{number:04d}{suffix}" for suffix in (".jpg", ".png")]
    return next((own for own in names if os.path.isfile(Path(root, own))), names[0])


PAIRS_FORMATS: dict[str, Callable[[list[str], StrPath, str], _Entry]] = {
    "path": _path_entry,
    "lfw": _lfw_entry,
}
