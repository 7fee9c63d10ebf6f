"""Table 2's layout, its means, what is bold, and names that would break it."""

import csv as reader
import json
import re

import numpy as np
import pytest

from opom_jax.errors import InputError
from opom_jax.evaluation.table import Table, as_dict, best, csv, groups, markdown, with_mean

ROWS = (("Softmax", "FI-UAP"), ("ArcFace", "FI-UAP"), ("Softmax", "ConvexHull"))


def table(rows=ROWS, targets=("SENet", "MobileNet")) -> Table:
    rng = np.random.default_rng(0)
    rates = np.sort(rng.uniform(0, 100, (len(rows), len(targets), 3)), -1)[..., ::-1]
    return Table(rows, targets, rates, np.full((len(targets), 3), [1.5, 0.5, 0.25]), 90)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_layout_of_the_paper():
    t = table()
    head, rule, none, *lines = map(cells, markdown(t).splitlines())
    columns = ["SENet Top-1", "SENet Top-5", "MobileNet Top-1", "MobileNet Top-5"]
    assert head == ["Surrogate", "Method", *columns, "Mean Top-1", "Mean Top-5"]
    assert {len(head)} == {len(line) for line in (rule, none, *lines)}
    assert none == ["", "no mask", *["1.5", "0.5"] * 3]
    surrogates = [["Softmax", "FI-UAP"], ["", "ConvexHull"], ["ArcFace", "FI-UAP"]]
    assert [line[:2] for line in lines] == surrogates
    shown = [[float(cell.strip("*")) for cell in line[2:]] for line in lines]
    for row, values in zip([0, 2, 1], shown, strict=True):
        expected = [*t.rates[row, :, :2].ravel(), *t.rates[row, :, :2].mean(0)]
        np.testing.assert_allclose(values, expected, atol=0.0501)


def test_bold_is_the_best_of_its_surrogate():
    t = table()
    assert groups(t) == {"Softmax": [0, 2], "ArcFace": [1]}
    rates, chosen = with_mean(t.rates), best(t)
    np.testing.assert_array_equal(chosen[0], rates[0] > rates[2])
    np.testing.assert_array_equal(chosen[2], rates[2] > rates[0])
    assert not chosen[1].any()  # nothing to compare with
    assert markdown(t).count("**") == 2 * 3 * 2


def test_rates_that_look_alike_are_both_bold():
    rates = np.full((2, 1, 3), 50.0) + np.array([0.0, 0.01])[:, None, None]
    t = Table((("S", "a"), ("S", "b")), ("T",), rates, np.zeros((1, 3)), 2)
    assert best(t).all()


def test_names_do_not_break_the_table():
    t = table((("a|b\n<b>", "*x*"),), ("t|1",))
    lines = markdown(t).splitlines()
    assert len(lines) == 4 and len({len(cells(line)) for line in lines}) == 1
    assert cells(lines[3])[:2] == [r"a\|b \<b\>", r"\*x\*"]


def test_csv_and_dict_hold_every_rate(tmp_path):
    t = table()
    csv(t, tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        lines = list(reader.DictReader(file))
    assert len(lines) == (1 + 3) * 2 and {line["tests"] for line in lines} == {"90"}
    assert [lines[0][key] for key in ("surrogate", "method", "target")] == ["", "none", "SENet"]
    rates = [[float(line[key]) for key in ("top1", "top5", "top10")] for line in lines]
    np.testing.assert_array_equal(np.reshape(rates[2:], t.rates.shape), t.rates)
    values = json.loads(json.dumps(as_dict(t)))
    assert values["targets"] == ["SENet", "MobileNet"] and values["tests"] == 90
    assert values["none"]["mean"] == {"top1": 1.5, "top5": 0.5, "top10": 0.25}
    for row, line in enumerate(values["rows"]):
        assert (line["surrogate"], line["method"]) == ROWS[row]
        assert line["rates"]["MobileNet"]["top5"] == t.rates[row, 1, 1]
        assert line["mean"]["top10"] == t.rates[row, :, 2].mean()


def test_csv_whole_or_not_at_all(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        csv(table(), tmp_path / "absent" / "table.csv")
    assert not list(tmp_path.iterdir())
