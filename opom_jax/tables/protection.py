"""Tables 2 to 5: protection rates by surrogate, method and target."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from opom_jax.baselines.settings import Settings as BaselineSettings
from opom_jax.evaluation.identification import TOP
from opom_jax.evaluation.table import SHOWN
from opom_jax.laboratory import COMPARED, METHODS
from opom_jax.masks.generate import Settings
from opom_jax.tables import published
from opom_jax.tables.options import Options
from opom_jax.tables.rates import Rates, above, rates
from opom_jax.tables.sheet import Sheet, bars
from opom_jax.tables.study import Masks, Study

# As the paper orders them.
ORDER = ("GD-UAP", "GAP", "FI-UAP", "FI-UAP+", "FI-UAP-all", *list(METHODS)[2:])
TRANSFER = ("FI-UAP", *list(METHODS)[2:])  # Table 4's
BASE, NOISE, NONE = "FI-UAP", "random noise", "no mask"
COLUMNS = ("surrogate", "method", "target", *(f"top{k}" for k in TOP), "tests")


class Row(NamedTuple):
    """Counts i64[S,M,P,4] of S random starts and M targets, and their rates."""

    found: np.ndarray
    rates: Rates


Rows = dict[tuple[str, str], Row]  # (surrogate, method) ->


def own(name: str, options: Options, seed: int = 0) -> Settings:
    """The settings of a method by the name that tables give it."""
    if name in METHODS:
        return Settings(method=METHODS[name], seed=seed)
    limits: dict[str, dict[str, Any]] = {
        "GD-UAP": {"iterations": options.iterations},
        "GAP": {"epochs": options.epochs},
    }
    return BaselineSettings(method=COMPARED[name], seed=seed, **limits.get(name, {}))


def boosted(name: str, options: Options, seed: int = 0) -> Settings:
    """The same with momentum and DFANet (4.2.2). The published code does not seed these: its people
    start from numbers that go on from one to the next, ours all from the same."""
    return Settings(
        method=METHODS[name],
        seed=seed,
        steps=options.steps,
        momentum=options.momentum,
        dropout=options.dropout,
    )


def row(study: Study, sets: Sequence[Masks | None]) -> Row:
    """One row of a table, of one set of masks for each random start."""
    targets = list(study.world.targets)
    surrogate = sets[0].surrogate if sets[0] else ""
    counted = [not study.is_white_box(surrogate, target) for target in targets]
    found = np.array([[study.found(masks, target) for target in targets] for masks in sets])
    return Row(found, rates(found, counted))


def plain(study: Study, options: Options, methods: Sequence[str] = ORDER) -> Rows:
    """The rows of Table 2 but for the first two: the methods of every surrogate."""
    sets = {}
    for surrogate in options.surrogates:
        for name in methods:
            starts = options.seeds if name in METHODS else 1
            each = [own(name, options, seed) for seed in range(starts)]
            sets[surrogate, name] = [Masks(surrogate, settings) for settings in each]
    return _rows(study, sets)


def with_transfer(study: Study, options: Options) -> Rows:
    """The rows of Table 4."""
    sets = {}
    for surrogate in options.surrogates:
        for name in TRANSFER:
            each = [boosted(name, options, seed) for seed in range(options.seeds)]
            sets[surrogate, name] = [Masks(surrogate, settings) for settings in each]
    return _rows(study, sets)


def _rows(study: Study, sets: Mapping[tuple[str, str], Sequence[Masks]]) -> Rows:
    """One of each group of sets, all of which are checked first."""
    for masks in chain(*sets.values()):
        study.check(masks)
    return {key: row(study, of) for key, of in sets.items()}


def table_2(study: Study, options: Options, number: int = 2) -> Sheet:
    """Every method (Table 2; 3 is the same on Privacy-Celebrities)."""
    rows = {("", NONE): row(study, [None]), ("", NOISE): row(study, [Masks("", 0)])}
    rows |= plain(study, options)
    targets = list(study.world.targets)
    heads = [f"{target} Top-{TOP[k]}" for target in targets for k in SHOWN]
    lines = []
    for (surrogate, name), of in rows.items():
        base = rows.get((surrogate, BASE))
        cells = _cells(study, surrogate, of.rates)
        lines.append(
            [surrogate, name, *cells, _mean(of.rates), _above(study, surrogate, of, base)]
            + [_paper(number, surrogate, name)]
        )
    notes = [
        common_note(study),
        caps(options),
        "The order of the methods: " + _order(rows, options.surrogates) + ".",
    ]
    head = ["Source", "Method", *heads, "Mean Top-1", f"above {BASE}", "paper"]
    return _sheet(study, f"Table {number}", rows, head, lines, notes + _of_starts(options))


def table_4(study: Study, options: Options, number: int = 4) -> Sheet:
    """With momentum and DFANet, and how much they add (Table 4; 5 is Privacy-Celebrities)."""
    rows, before = with_transfer(study, options), plain(study, options, TRANSFER)
    targets = list(study.world.targets)
    heads = [f"{target} Top-{TOP[k]}" for target in targets for k in SHOWN]
    lines = []
    for (surrogate, name), of in rows.items():
        base = before[surrogate, name]
        gains = of.rates.top - base.rates.top
        cells = _cells(study, surrogate, of.rates, gains)
        gain = _above(study, surrogate, of, base)
        lines.append(
            [surrogate, name, *cells, _mean(of.rates), gain, _paper(number, surrogate, name)]
        )
    notes = [
        common_note(study),
        f"Decay {options.momentum:g}, dropout {options.dropout:g}, {options.steps} steps; in "
        f"brackets what they add to Table {number - 2}, which has 16 steps.",
    ]
    head = ["Source", "Method", *heads, "Mean Top-1", "gain", "paper"]
    return _sheet(study, f"Table {number}", rows, head, lines, notes + _of_starts(options))


def _sheet(study: Study, name: str, rows: Rows, head, lines, notes) -> Sheet:
    values = [
        [surrogate, method, target, *of.rates.top[t], int(of.found[0, t, :, 0].sum())]
        for (surrogate, method), of in rows.items()
        for t, target in enumerate(study.world.targets)
    ]
    groups: dict[str, dict[str, tuple[float, float]]] = {}
    for (surrogate, method), of in rows.items():
        groups.setdefault(surrogate or "-", {})[method] = (of.rates.mean[0], of.rates.error)
    title = f"{name}, {study.world.name}: protection rates in percent"

    def draw(figure) -> None:
        bars(figure, groups, "mean Top-1 protection, %")

    return Sheet(title, head, lines, COLUMNS, values, notes, draw)


def _cells(study: Study, surrogate: str, of: Rates, gains: np.ndarray | None = None) -> list[str]:
    cells = []
    for t, target in enumerate(study.world.targets):
        mark = star(study, surrogate, target)
        for k in SHOWN:
            gain = "" if gains is None else f" ({gains[t, k]:+.1f})"
            cells.append(f"{of.top[t, k]:.1f}{mark}{gain}")
    return cells


def star(study: Study, surrogate: str, target: str) -> str:
    """What marks the number of a white box."""
    return "*" if study.is_white_box(surrogate, target) else ""


def _mean(of: Rates) -> str:
    spread = "" if np.isnan(of.spread) else f" [{of.spread:.1f}]"
    return f"{of.mean[0]:.1f} ± {of.error:.1f}{spread}"


def _above(study: Study, surrogate: str, of: Row, base: Row | None) -> str:
    if base is None or base is of:
        return "-"
    counted = [not study.is_white_box(surrogate, target) for target in study.world.targets]
    apart, error = above(of.found, base.found, counted)
    return f"{apart:+.1f} ± {error:.1f}"


def _paper(table: int, surrogate: str, name: str) -> str:
    return number(published.mean(table, surrogate, name, "top1"))


def number(value: float | None) -> str:
    """A rate as shown, nothing for none."""
    return "" if value is None else f"{value:.1f}"


def caps(options: Options) -> str:
    """What ends the baselines that have no number of steps of their own."""
    return (
        f"GD-UAP ended after at most {options.iterations} steps, GAP after {options.epochs} epochs."
    )


def _of_starts(options: Options) -> list[str]:
    if options.seeds == 1:
        return []
    return [f"In square brackets the standard deviation over {options.seeds} random starts."]


def _order(rows: Rows, surrogates: tuple[str, ...]) -> str:
    """Methods from the strongest to the weakest, by their mean over surrogates."""
    means: Mapping[str, float] = {
        name: float(np.mean([rows[surrogate, name].rates.mean[0] for surrogate in surrogates]))
        for name in ORDER
    }
    ranked = sorted(means, key=lambda name: -means[name])
    return ", ".join(f"{name} {means[name]:.1f}" for name in ranked)


def common_note(study: Study) -> str:
    """What the numbers of a table are about."""
    photos = study.world.photos
    tests = sum(n * (n - 1) for n in photos.counts)
    return (
        f"{len(photos.train)} people, {photos.train.shape[1]} photos for a mask, {tests} tests a "
        f"target against {len(photos.distractors)} distractors; ± is a bootstrap over people. `*` "
        "is the surrogate itself, which no mean counts; paper: the mean Top-1 published for the "
        "surrogate of that name."
    )
