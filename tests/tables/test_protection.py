"""Tables 2 to 5 on a tiny world: the paper's rows, and the numbers of the study's counts."""

import csv

import numpy as np
import pytest
from matplotlib.figure import Figure

from opom_jax.baselines.settings import Settings as BaselineSettings
from opom_jax.laboratory import METHODS
from opom_jax.masks.generate import Settings
from opom_jax.tables import TABLES, protection, published
from opom_jax.tables.protection import own, table_2, table_4
from opom_jax.tables.rates import above, rates
from opom_jax.tables.sheet import Sheet
from opom_jax.tables.study import Masks, Study

TARGETS = "ACD"
TESTS = 6 + 2 + 6 + 2 + 2
BLACK_BOXES = {"": (True, True, True), "A": (False, True, True), "B": (True, True, True)}


def printed(table: str) -> list[str]:
    """Methods of a table in the paper's order."""
    with published.FILE.open(newline="") as file:
        methods = [line["method"] for line in csv.DictReader(file) if line["table"] == table]
    return list(dict.fromkeys(methods))


def counted(study: Study, *sets: Masks | None) -> np.ndarray:
    return np.array([[study.found(masks, target) for target in TARGETS] for masks in sets])


def sets_of(options, surrogate: str, name: str) -> Masks | None:
    """The masks that a row of Table 2 is about."""
    noise = {"no mask": None, "random noise": Masks("", 0)}
    return noise[name] if name in noise else Masks(surrogate, own(name, options))


def boosted(surrogate: str, name: str) -> Masks:
    settings = Settings(method=METHODS[name], momentum=1.0, dropout=0.1, steps=2)
    return Masks(surrogate, settings)


def shown(mean: float, error: float) -> str:
    return f"{mean:.1f} ± {error:.1f}"


@pytest.fixture(scope="module")
def second(study, options) -> Sheet:
    return table_2(study, options)


@pytest.fixture(scope="module")
def fourth(study, options) -> Sheet:
    return table_4(study, options)


def test_settings_are_the_papers(options):
    assert own("FI-UAP+", options, 3) == Settings(method="fi_uap_plus", seed=3)
    assert own("GAP", options) == BaselineSettings(method="gap", epochs=1)
    assert own("GD-UAP", options) == BaselineSettings(method="gd_uap", iterations=2)
    assert own("FI-UAP-all", options) == BaselineSettings(method="fi_uap_all")
    assert protection.boosted("FI-UAP", options._replace(steps=100)) == Settings(
        method="fi_uap", momentum=1.0, dropout=0.1, steps=100
    )


def test_rows_are_in_the_papers_order(second, fourth):
    methods = printed("2")
    rows = [("", "no mask"), ("", "random noise"), *((s, m) for s in "AB" for m in methods)]
    assert [tuple(line[:2]) for line in second.lines] == rows and len(methods) == 8
    assert [tuple(line[:2]) for line in fourth.lines] == [
        (s, m) for s in "AB" for m in printed("4")
    ]


@pytest.mark.parametrize("name", ["second", "fourth"])
def test_every_line_has_a_cell_for_each_head(name, request):
    sheet = request.getfixturevalue(name)
    assert {len(line) for line in sheet.lines} == {len(sheet.head)} == {2 + 3 * 2 + 3}
    heads = [f"{target} Top-{k}" for target in TARGETS for k in (1, 5)]
    assert list(sheet.head[2:-3]) == heads
    assert {len(line) for line in sheet.values} == {len(sheet.columns)}
    assert len(sheet.values) == 3 * len(sheet.lines)
    figure = Figure()
    sheet.draw(figure)
    assert len(figure.axes[0].patches) == len(sheet.lines)


def test_cells_of_table_2_are_rates_of_the_counts(study, options, second):
    for surrogate, name, *cells in second.lines:
        found = counted(study, sets_of(options, surrogate, name))
        wanted = rates(found, BLACK_BOXES[surrogate])
        stars = ["*" if surrogate == target else "" for target in TARGETS]
        numbers = [f"{wanted.top[t, k]:.1f}{stars[t]}" for t in range(len(TARGETS)) for k in (0, 1)]
        assert cells[:7] == [*numbers, shown(wanted.mean[0], wanted.error)]
        assert cells[8] == ""  # the paper knows no A and no B
        if name in ("no mask", "random noise", "FI-UAP"):
            assert cells[7] == "-"
            continue
        base = counted(study, Masks(surrogate, Settings(method="fi_uap")))
        apart, error = above(found, base, BLACK_BOXES[surrogate])
        assert cells[7] == f"{apart:+.1f} ± {error:.1f}"


def test_masks_of_the_tiny_world_do_something(second):
    means = [float(line[8].split()[0]) for line in second.lines]
    assert len(set(means)) > 5 and max(means) > means[0]


def test_values_of_table_2_are_unrounded(study, options, second):
    columns = "surrogate", "method", "target", "top1", "top5", "top10", "tests"
    assert tuple(second.columns) == columns
    for surrogate, name, target, *numbers in second.values:
        found = study.found(sets_of(options, surrogate, name), target).sum(0)
        assert numbers == pytest.approx([*(100 - 100 * found[1:] / found[0]), TESTS])


def test_cells_of_table_4_say_what_was_added_to_table_2(study, options, fourth):
    for surrogate, name, *cells in fourth.lines:
        found = counted(study, boosted(surrogate, name))
        base = counted(study, sets_of(options, surrogate, name))
        after, before = (rates(of, BLACK_BOXES[surrogate]) for of in (found, base))
        numbers = [
            f"{after.top[t, k]:.1f}{'*' if surrogate == target else ''} "
            f"({after.top[t, k] - before.top[t, k]:+.1f})"
            for t, target in enumerate(TARGETS)
            for k in (0, 1)
        ]
        apart, error = above(found, base, BLACK_BOXES[surrogate])
        assert apart == pytest.approx(after.mean[0] - before.mean[0])
        means = [shown(after.mean[0], after.error), f"{apart:+.1f} ± {error:.1f}"]
        assert cells == [*numbers, *means, ""]


def test_table_4_needs_no_other_methods_than_its_own(study, options, monkeypatch):
    asked, found = set(), Study.found
    monkeypatch.setattr(
        Study, "found", lambda self, masks, t: asked.add(masks) or found(self, masks, t)
    )
    table_4(study, options)
    wanted = {f(s, n) for s in "AB" for n in printed("4") for f in (boosted, plain(options))}
    assert asked == wanted


def plain(options):
    return lambda surrogate, name: sets_of(options, surrogate, name)


def test_notes_of_table_2(second):
    common, ended, order = second.notes
    assert common.startswith(
        f"5 people, 3 photos for a mask, {TESTS} tests a target against 24 distractors;"
    )
    assert "at most 2 steps, GAP after 1 epochs" in ended
    names = printed("2")
    means = {
        name: np.mean([float(line[8].split()[0]) for line in second.lines if line[1] == name])
        for name in names
    }
    ranked = order.removesuffix(".").split(": ")[1].split(", ")
    assert {entry.rpartition(" ")[0] for entry in ranked} == set(names)
    numbers = [float(entry.rpartition(" ")[2]) for entry in ranked]
    assert numbers == sorted(numbers, reverse=True)
    for entry in ranked:
        name, _, number = entry.rpartition(" ")
        assert float(number) == pytest.approx(means[name], abs=0.11)


def test_spread_is_over_random_starts(study, options, monkeypatch):
    monkeypatch.setattr(protection, "ORDER", ("GD-UAP", "FI-UAP"))
    sheet = table_2(study, options._replace(surrogates=("A",), seeds=2))
    cells = {line[1]: line for line in sheet.lines}
    starts = [Masks("A", Settings(method="fi_uap", seed=seed)) for seed in range(2)]
    wanted = rates(counted(study, *starts), BLACK_BOXES["A"])
    assert cells["FI-UAP"][8] == f"{shown(wanted.mean[0], wanted.error)} [{wanted.spread:.1f}]"
    assert wanted.spread > 0 and "[" not in cells["GD-UAP"][8]
    assert "standard deviation over 2 random starts" in sheet.notes[-1]
    tests = {line[1]: line[-1] for line in sheet.values}
    assert tests == dict.fromkeys(cells, TESTS)


def test_table_4_takes_as_many_random_starts(study, options, monkeypatch):
    monkeypatch.setattr(protection, "TRANSFER", ("FI-UAP",))
    sheet = table_4(study, options._replace(surrogates=("A",), seeds=2))
    (line,) = sheet.lines
    starts = [Masks("A", protection.boosted("FI-UAP", options, seed)) for seed in range(2)]
    found = counted(study, *starts)
    wanted = rates(found, BLACK_BOXES["A"])
    base = counted(study, *[Masks("A", own("FI-UAP", options, seed)) for seed in range(2)])
    apart, error = above(found, base, BLACK_BOXES["A"])
    means = f"{shown(wanted.mean[0], wanted.error)} [{wanted.spread:.1f}]"
    assert line[8:10] == [means, f"{apart:+.1f} ± {error:.1f}"]
    assert "standard deviation over 2 random starts" in sheet.notes[-1]


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_published_means_are_those_of_the_number(study, options, monkeypatch, number):
    monkeypatch.setattr(protection, "ORDER", ("FI-UAP",))
    monkeypatch.setattr(protection, "TRANSFER", ("FI-UAP",))
    known = study.of(study.world._replace(surrogates={"ArcFace": study.world.surrogates["A"]}))
    sheet = TABLES[number](known, options._replace(surrogates=("ArcFace",)))
    assert sheet.title.startswith(f"Table {number}, tiny")
    (line,) = (line for line in sheet.lines if line[1] == "FI-UAP")
    assert line[-1] == f"{published.mean(number, 'ArcFace', 'FI-UAP', 'top1'):.1f}"
