"""Sheets: a table that is one, a CSV that reads back, a picture, and nothing of a failure."""

import csv

import numpy as np
import pytest
from PIL import Image

from opom_jax.errors import InputError
from opom_jax.tables.sheet import Sheet, bars, markdown, write

GROUPS = {"A": {"one": (1.0, 0.1), "two": (2.0, 0.2)}, "B": {"two": (3.0, 0.3)}}


def sheet(draw=lambda figure: bars(figure, GROUPS, "height")) -> Sheet:
    return Sheet(
        "A table",
        ["Source", "Method", "C"],
        [["A", "one", "1.0 ± 0.1"], ["B", "two", "3.0"]],
        ["source", "name", "value", "tests"],
        [["A", "one", np.float64(1 / 3), 2], ["B", "two, too", 3.0, np.int64(4)]],
        ["First note.", "Second note."],
        draw,
    )


def test_markdown_is_a_table_with_title_and_notes():
    title, body, *notes = markdown(sheet()).rstrip("\n").split("\n\n")
    assert title == "## A table" and notes == ["First note.", "Second note."]
    rows = [line.strip("|").split("|") for line in body.split("\n")]
    assert {len(row) for row in rows} == {3} and len(rows) == 4
    assert [cell.strip() for cell in rows[1]] == ["---", "---", "--:"]
    assert [cell.strip() for cell in rows[2]] == ["A", "one", "1.0 ± 0.1"]


def test_files_read_back(tmp_path):
    write(sheet(), tmp_path, "table9")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["table9.csv", "table9.md", "table9.png"]
    assert (tmp_path / "table9.md").read_text(encoding="utf-8") == markdown(sheet())
    with open(tmp_path / "table9.csv", newline="") as file:
        head, *lines = csv.reader(file)
    assert tuple(head) == tuple(sheet().columns)
    assert [(a, b, float(c), int(d)) for a, b, c, d in lines] == [
        ("A", "one", 1 / 3, 2),
        ("B", "two, too", 3.0, 4),
    ]
    with Image.open(tmp_path / "table9.png") as picture:
        picture.load()
        assert picture.size == (1080, 600) and len(picture.getcolors(1 << 20) or ()) > 3


def test_a_failure_to_draw_leaves_what_was_there(tmp_path):
    def fail(figure):
        figure.subplots()
        raise RuntimeError("too bad")

    with pytest.raises(RuntimeError, match="too bad"):
        write(sheet(fail), tmp_path, "table9")
    assert not list(tmp_path.iterdir())
    write(sheet(), tmp_path, "table9")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="too bad"):
        write(sheet(fail)._replace(title="Another"), tmp_path, "table9")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write(sheet(), tmp_path / "nowhere", "table9")


def test_bars_stand_in_their_groups_with_one_colour_a_name():
    from matplotlib.figure import Figure

    figure = Figure()
    bars(figure, GROUPS, "height")
    (axes,) = figure.axes
    one, two = (box.patches for box in axes.containers if hasattr(box, "patches"))
    assert [bar.get_height() for bar in one] == [1] and [bar.get_height() for bar in two] == [2, 3]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in [*one, *two]]
    np.testing.assert_allclose(centres, [-0.2, 0.2, 1.2])
    assert two[0].get_facecolor() == two[1].get_facecolor() != one[0].get_facecolor()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["A", "B"]
