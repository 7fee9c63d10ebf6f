"""evaluate with lists of pairs that somebody made up: refused in a sentence before a network looks
at a photo, or read as they are meant."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opom_jax.cli import evaluate

GOOD = "a/1.png a/2.png 1\na/1.png b/1.png 0\n"
LFW = "a 1 2\na 1 b 1\n"
LIST = "pairs.txt"


@pytest.fixture
def own(world, tmp_path, monkeypatch):
    """The world with people of its own and masks that are zero in `own.root / "run"`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = type(world).at(tmp_path / "own")
    shutil.copytree(world.people, own.people)
    (own.root / "run" / "masks").mkdir(parents=True)
    for k in range(3):
        mask = np.zeros((3, 112, 112), np.float32)
        np.save(own.root / "run" / "masks" / f"mask_id{k}.npy", mask)
    for name in "ab":  # as LFW names them
        for k in (1, 2):
            photo = own.root / "lfw" / name / f"{name}_{k:04d}.png"
            photo.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(own.people / name / f"{k}.png", photo)
    return own._replace(network=world.network, other=world.other, distractors=world.distractors)


def command(own, *flags: str) -> list[str]:
    given = [flag for flag in own.evaluate(own.root / "run") if "targets" not in flag]
    found = own.root / LIST
    return [*given, f"--config.targets={own.network}", f"--config.data.pairs={found}", *flags]


def of_lfw(own) -> list[str]:
    return [f"--config.data.root={own.root / 'lfw'}", "--config.data.pairs_format=lfw"]


TEXTS = {
    "nothing": ("", "'{list}' has no pairs of one person; add some"),
    "blank lines": (" \n\r\n\t\n", "'{list}' has no pairs of one person; add some"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0", "line 1 of '{list}' is not UTF-8 text"),
    "numbers": (bytes(range(32)) * 9, "line 1 of '{list}' is not two paths"),
    "UTF-16": (GOOD.encode("utf-16"), "line 1 of '{list}' is not UTF-8 text"),
    "UTF-16, no mark": (GOOD.encode("utf-16-le"), "line 1 of '{list}' is not two paths"),
    "Latin-1": (GOOD.encode() + b"a/1.png \xe9/1.png 0", "line 3 of '{list}' is not UTF-8 text"),
    "a NUL": (GOOD + "a/1.png b/1\0.png 0", "line 3 of '{list}' holds a NUL byte"),
    "a mark within": (
        GOOD + "\ufeffa/1.png a/2.png 1",
        "line 3 of '{list}' names '\\ufeffa/1.png'",
    ),
    "old line ends": (GOOD.replace("\n", "\r"), "line 1 of '{list}' is not two paths"),
    "commas": (GOOD.replace(" ", ","), "line 1 of '{list}' is not two paths"),
    "a heading": ("first second same\n" + GOOD, "line 1 of '{list}' is not two paths"),
    "a remark": ("# pairs\n" + GOOD, "line 1 of '{list}' is not two paths"),
    "no label": (GOOD + "a/1.png a/2.png", "line 3 of '{list}' is not two paths"),
    "label 2": (GOOD + "a/1.png a/2.png 2", "line 3 of '{list}' is not two paths"),
    "label -1": (GOOD + "a/1.png b/2.png -1", "line 3 of '{list}' is not two paths"),
    "label 1.0": (GOOD + "a/1.png a/2.png 1.0", "line 3 of '{list}' is not two paths"),
    "label True": (GOOD + "a/1.png a/2.png True", "line 3 of '{list}' is not two paths"),
    "four columns": (GOOD + "a/1.png a/2.png 1 1", "line 3 of '{list}' is not two paths"),
    "spaces in a name": (GOOD + "a/my 1.png a/2.png 1", "two paths without spaces"),
    "no such photo": (GOOD + "a/1.png a/9.png 1", "line 3 of '{list}' names 'a/9.png'"),
    "a folder for a photo": (GOOD + "a/1.png a 1", "line 3 of '{list}' names 'a'"),
    "a long name": (GOOD + f"{'x' * 9999} a/1.png 0", f"line 3 of '{{list}}' names '{'x' * 200}…'"),
    "an absolute path": (GOOD + "{people}/a/1.png a/2.png 1", "line 3 of '{list}' leaves the root"),
    "a way out": (GOOD + "a/1.png ../people/a/2.png 1", "line 3 of '{list}' leaves the root"),
    "a hidden way out": (GOOD + "a/1.png a/../../x 1", "line 3 of '{list}' leaves the root"),
    "another alphabet": (
        GOOD + "a/1.png \u0430/2.png 0",
        "line 3 of '{list}' names '\u0430/2.png'",
    ),
    "a photo with itself": (GOOD + "b/1.png b/1.png 1", "line 3 of '{list}' pairs a photo with"),
    "and by another path": (GOOD + "b/1.png ./b/1.png 0", "line 3 of '{list}' pairs a photo with"),
    "both labels": (GOOD + "a/2.png a/1.png 0", "line 3 of '{list}' is an earlier pair with"),
    "one person as two": (GOOD + "a/1.png a/3.png 0", "line 3 of '{list}' says two people, but"),
    "two people as one": (GOOD + "a/1.png b/3.png 1", "photos are of a and b; mend its label"),
    "no pairs of two people": (GOOD[:18], "'{list}' has no pairs of two people; add some"),
    "no pairs of one person": (GOOD[18:], "'{list}' has no pairs of one person; add some"),
    "LFW's list": ("1\t2\n" + LFW, "line 1 of '{list}' is not two paths"),
}
LFW_TEXTS = {
    "more pairs than there are": ("10\t300\n" + LFW, "has 2 pairs, not the 6000 of its first line"),
    "fewer": ("0\n" + LFW, "has 2 pairs, not the 0 of its first line"),
    "only the first line": ("1\t1\n", "has 0 pairs, not the 2 of its first line"),
    "no numbers": ("a b\n" + LFW, "line 1 of '{list}' is not 'name n1 n2'"),
    "two first lines": ("1\n1\n" + LFW, "line 2 of '{list}' is not 'name n1 n2'"),
    "photo 0": (LFW + "a 0 1\n", "line 3 of '{list}' names 'a/a_0000.jpg'"),
    "photo -1": (LFW + "a -1 1\n", "line 3 of '{list}' is not 'name n1 n2'"),
    "a way out": (LFW + "../people/a 1 2\n", "line 3 of '{list}' leaves the root"),
    "one name twice": (LFW + "a 1 a 2\n", "line 3 of '{list}' is an earlier pair with"),
    "a list of paths": (GOOD, "line 1 of '{list}' is not 'name n1 n2'"),
}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def vast(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**40)  # takes no room


FILES = {
    "nowhere": (lambda path: None, "(No such file or directory); give a readable list"),
    "a folder": (Path.mkdir, "(no regular file); give a readable list"),
    "a pipe": (pipe, "(no regular file); give a readable list"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "(no regular file)"),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
    "vast": (vast, "(1099511627776 bytes, too many for a list); give a readable list"),
}


@pytest.fixture
def refused(own, opom, monkeypatch):
    """refused(part, *flags) checks that the command is refused in a sentence with this part."""
    monkeypatch.setattr(evaluate, "extractor", lambda *_: pytest.fail("computed before"))

    def check(part: str, *flags: str) -> None:
        answer = opom(*command(own, *flags))
        assert (answer.code, answer.out) == (2, "")
        (sentence,) = answer.errors
        assert part.format(list=own.root / LIST) in sentence
        assert sentence.endswith(".") and "; " in sentence and len(sentence) < 500
        assert [path.name for path in (own.root / "run").iterdir()] == ["masks"]

    return check


def write(own, text: str | bytes) -> None:
    if isinstance(text, str):
        text = text.replace("{people}", str(own.people)).encode("utf-8")
    (own.root / LIST).write_bytes(text)


@pytest.mark.parametrize("text, part", TEXTS.values(), ids=TEXTS)
def test_texts(own, refused, text, part):
    write(own, text)
    refused(part)


@pytest.mark.parametrize("text, part", LFW_TEXTS.values(), ids=LFW_TEXTS)
def test_texts_of_lfw(own, refused, text, part):
    write(own, text)
    refused(part, *of_lfw(own))


@pytest.mark.parametrize("make, part", FILES.values(), ids=FILES)
def test_files(own, refused, make, part):
    make(own.root / LIST)
    refused(part)


def test_photos(own, refused):
    """Of nobody, of another size, no photo."""
    strangers = own.root / "lfw" / "stranger"
    shutil.copytree(own.people / "c", strangers)
    write(own, "a/a_0001.png a/a_0002.png 1\nstranger/1.png a/a_0001.png 0\n")
    root = f"--config.data.root={own.root / 'lfw'}"
    refused("line 2 of '{list}': the first photo", root)
    write(own, "a/a_0001.png a/a_0002.png 1\na/a_0001.png stranger/1.png 0\n")
    Image.new("RGB", (96, 112)).save(strangers / "1.png")
    refused(f"'{strangers / '1.png'}' is 96 x 112 pixels", root)
    (strangers / "1.png").write_text("a/1.png")
    refused(f"'{strangers / '1.png'}' is not a whole", root)
    (strangers / "1.png").unlink()
    os.mkfifo(strangers / "1.png")
    refused("line 2 of '{list}' names 'stranger/1.png', which is no file", root)


def test_what_is_meant(own, opom):
    """However it is written; twice is twice."""
    (own.people / "c").rename(own.people / "\N{SNOWMAN}é")
    text = "a/1.png a/2.png 1\na/1.png \N{SNOWMAN}é/1.png 0\na/2.png b/1.png 0\n"
    found = []
    for written in (
        text,
        "\ufeff" + text.replace(" ", "\t \t").replace("\n", " \r\n\r\n").rstrip(),
        text.replace("a/", "./a//").replace("b/", "a/../b/"),
        text * 2,
    ):
        write(own, written)
        assert opom(*command(own)).code == 0
        found.append(json.loads((own.root / "run" / "verification.json").read_text())["network"])
    once, again, by_way, twice = found
    assert once == again == by_way
    assert twice.pop("genuine_pairs") == 2 * once.pop("genuine_pairs") == 2
    assert twice.pop("impostor_pairs") == 2 * once.pop("impostor_pairs") == 4
    for row in ("none", "masked"):
        assert twice[row] == pytest.approx(once[row])
