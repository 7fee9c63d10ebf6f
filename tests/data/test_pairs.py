"""Which photos are in a list of pairs, whose they are, and that bad lines are refused by number."""

import os
from pathlib import Path

import pytest

from opom_jax.data import lists
from opom_jax.data.pairs import Pairs, owners, read_pairs
from opom_jax.data.people import Person
from opom_jax.errors import InputError

NAMES = "ann/1.jpg", "ann/2.jpg", "bob/1.jpg", "Ann_B/Ann_B_0001.jpg", "Ann_B/Ann_B_0012.png"


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with photos (empty: none is opened here)."""
    for name in (*NAMES, "Ann_B/Ann_B_0001.png", "Cy/Cy_0003.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def listed(root: Path, text: str, **options) -> Pairs:
    (root.parent / "pairs.txt").write_text(text)
    return read_pairs(root.parent / "pairs.txt", root, **options)


def content(pairs: Pairs, root: Path) -> list[tuple[str, str, bool]]:
    names = [str(path.relative_to(root)) for path in pairs.photos]
    assert len(set(names)) == len(names)
    two = (pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist())
    return [(names[one], names[other], same) for one, other, same in zip(*two, strict=True)]


def test_paths(root):
    text = "ann/1.jpg ann/2.jpg 1\n\n  ann/1.jpg\tbob/1.jpg  0\r\nbob/1.jpg ann/1.jpg 0"
    pairs = listed(root, text)
    assert content(pairs, root) == [
        ("ann/1.jpg", "ann/2.jpg", True),
        ("ann/1.jpg", "bob/1.jpg", False),
        ("bob/1.jpg", "ann/1.jpg", False),
    ]
    assert [where.split(" of ")[0] for where in pairs.where] == ["line 1", "line 3", "line 4"]


@pytest.mark.parametrize("head", ["1\t1\n", "1\n", ""])
def test_lfw(root, head):
    pairs = listed(root, head + "Ann_B\t1\t12\nAnn_B\t12\tCy\t3\n", pairs_format="lfw")
    assert content(pairs, root) == [
        ("Ann_B/Ann_B_0001.jpg", "Ann_B/Ann_B_0012.png", True),
        ("Ann_B/Ann_B_0012.png", "Cy/Cy_0003.png", False),
    ]


def test_owners_are_known_by_their_file_or_by_its_folder(root):
    (root / "link").symlink_to(root / "bob")
    people = [
        Person("00000_ann", (root / "ann/1.jpg",), (root / "link/1.jpg",)),
        Person("ann", (root / "Cy/Cy_0003.png",), ()),
    ]
    lines = "bob/1.jpg ann/1.jpg 1\nann/1.jpg ann/2.jpg 0\nann/2.jpg bob/1.jpg 0\n"
    pairs = listed(root, lines)
    found = owners(pairs, people)
    whose = {str(pairs.photos[place].relative_to(root)): k for place, k in found.items()}
    assert whose == {"bob/1.jpg": 0, "ann/1.jpg": 0, "ann/2.jpg": 1}
    with pytest.raises(InputError, match=r"^line 2 of .*bob/1.jpg.* none of the 1 people"):
        owners(listed(root, "ann/1.jpg ann/2.jpg 1\nbob/1.jpg ann/1.jpg 0\n"), people[1:])


def test_labels_that_the_people_gainsay(root):
    """A second photo of nobody may be of anybody."""
    people = [Person(k, (root / f"{k}/1.jpg",), ()) for k in ("ann", "bob")]
    good = GOOD["path"] + "ann/2.jpg Cy/Cy_0003.png 1\n"
    assert len(owners(listed(root, good), people)) == 2
    with pytest.raises(InputError, match="^line 4 of .* one person, but .* of ann and bob; mend"):
        owners(listed(root, good + "ann/2.jpg bob/1.jpg 1\n"), people)
    wrong = "ann/1.jpg bob/1.jpg 0\nann/1.jpg ann/2.jpg 0\nbob/1.jpg Cy/Cy_0003.png 1\n"
    with pytest.raises(InputError, match="^line 2 of .* two people, but .* are of ann; mend"):
        owners(listed(root, wrong), people)


BAD = {
    "ann/1.jpg ann/2.jpg": ("path", "line 3"),
    "ann/1.jpg ann/2.jpg 2": ("path", "line 3"),
    "ann/1.jpg ann/2.jpg 1 1": ("path", "line 3"),
    "ann/1.jpg ann/9.jpg 1": ("path", "line 3 .*ann/9.jpg"),
    "ann/1.jpg ../x.jpg 1": ("path", "line 3 .*leaves the root"),
    "ann/1.jpg a\0b 1": ("path", "line 3 .*NUL"),
    "ann/1.jpg ./ann/1.jpg 1": ("path", "line 3 .*itself"),
    "ann/2.jpg ann/1.jpg 0": ("path", "line 3 .*another label"),
    f"{'x' * 5000} ann/1.jpg 0": ("path", "line 3 .{,400}$"),
    "\ufeffann/1.jpg ann/2.jpg 1": ("path", "line 3 .*ufeffann"),
    "10 300": ("lfw", "line 3"),
    "Ann_B 1": ("lfw", "line 3"),
    "Ann_B 1 x": ("lfw", "line 3"),
    "Ann_B 1 Cy 3 4": ("lfw", "line 3"),
    "Ann_B 1 2": ("lfw", "line 3 .*Ann_B_0002.jpg"),
    f"Ann_B 1 {'9' * 5000}": ("lfw", "line 3"),
    "../x 1 1": ("lfw", "line 3 .*leaves the root"),
}
GOOD = {
    "path": "ann/1.jpg ann/2.jpg 1\nann/1.jpg bob/1.jpg 0\n",
    "lfw": "Ann_B 1 12\nAnn_B 1 Cy 3\n",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_lines(root, line):
    pairs_format, named = BAD[line]
    with pytest.raises(InputError, match=f"^{named}"):
        listed(root, GOOD[pairs_format] + line, pairs_format=pairs_format)


@pytest.mark.parametrize("head", ["10\t300", "2", "1 1 ", "0"])
def test_another_number_of_pairs_than_lfw_says(root, head):
    lines = GOOD["lfw"] + "Ann_B 12 Cy 3\n"
    with pytest.raises(InputError, match=r"pairs.txt' has 3 pairs, not the \d+ of its first line"):
        listed(root, f"{head}\n{lines}", pairs_format="lfw")


def test_a_first_line_of_lfw_has_numbers(root):
    with pytest.raises(InputError, match="^line 1 .* is not 'name n1 n2'"):
        listed(root, "Ann_B 1\n" + GOOD["lfw"], pairs_format="lfw")


@pytest.mark.parametrize("lines, kind", [("", "one"), (GOOD["path"][:21], "two")])
def test_both_kinds_of_pairs_are_needed(root, lines, kind):
    with pytest.raises(InputError, match=f"pairs.txt' has no pairs of {kind} p"):
        listed(root, lines)


def test_bad_lists(root, monkeypatch):
    os.mkfifo(root / "pipe")
    with pytest.raises(InputError, match="pipe' cannot be read .no regular file"):
        read_pairs(root / "pipe", root)
    monkeypatch.setattr(lists, "MAX_BYTES", 40)
    with pytest.raises(InputError, match=r"pairs.txt' cannot be read \(44 bytes, too many"):
        listed(root, GOOD["path"])
    with pytest.raises(InputError, match="nowhere' cannot be read"):
        read_pairs(root / "nowhere", root)
    with pytest.raises(InputError, match="pairs_format is 'csv'"):
        read_pairs(root, root, "csv")
