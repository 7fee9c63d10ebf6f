"""The paper's Table 2: protection by surrogate, method and target, as Markdown, CSV and JSON."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from opom_jax.evaluation.identification import TOP
from opom_jax.evaluation.report import plain, write_csv

SHOWN = (0, 1)  # of TOP: the table shows Top-1 and Top-5
KEYS = tuple(f"top{k}" for k in TOP)


class Table(NamedTuple):
    """Protection rates in percent, 0..100.

    Attributes:
      rows: (surrogate, method) as shown, R of them.
      targets: names of the networks that search, M of them.
      rates: f64[R,M,3], Top-1, Top-5 and Top-10 with masks.
      none: f64[M,3] without.
      tests: searches behind each rate.
    """

    rows: tuple[tuple[str, str], ...]
    targets: tuple[str, ...]
    rates: np.ndarray
    none: np.ndarray
    tests: int


def groups(table: Table) -> dict[str, list[int]]:
    """Surrogate -> the numbers of its rows, surrogates in the order in which they appear."""
    found: dict[str, list[int]] = {}
    for number, (surrogate, _) in enumerate(table.rows):
        found.setdefault(surrogate, []).append(number)
    return found


def with_mean(rates: np.ndarray) -> np.ndarray:
    """Rates [...,M,3] and after them their mean over the targets, [...,M+1,3]."""
    return np.concatenate([rates, rates.mean(-2, keepdims=True)], -2)


def best(table: Table) -> np.ndarray:
    """bool[R,M+1,3]: the highest as shown among the methods of one surrogate, all of a tie;
    none where a surrogate has but one method."""
    shown = np.round(with_mean(table.rates), 1)
    chosen = np.zeros(shown.shape, bool)
    for rows in groups(table).values():
        chosen[rows] = (shown[rows] == shown[rows].max(0)) & (len(rows) > 1)
    return chosen


def percent(rate: float) -> str:
    """A rate as shown, rounded as `best` rounds."""
    return f"{np.round(rate, 1):.1f}"


def markdown(table: Table) -> str:
    """The layout of Table 2: no mask, then the methods of each surrogate; Top-1 and Top-5 of each
    target and of their mean; the best method of a surrogate is bold."""
    names = [*map(plain, table.targets), "Mean"]
    heads = [f"{name} Top-{TOP[k]}" for name in names for k in SHOWN]
    lines = [
        _line(["Surrogate", "Method", *heads]),
        "|---|---|" + "--:|" * len(heads),
        _line(["", "no mask", *_cells(with_mean(table.none))]),
    ]
    rates, bold = with_mean(table.rates), best(table)
    for surrogate, rows in groups(table).items():
        for row in rows:
            name = plain(surrogate) if row == rows[0] else ""
            method = plain(table.rows[row][1])
            lines.append(_line([name, method, *_cells(rates[row], bold[row])]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(rates: np.ndarray, bold: np.ndarray | None = None) -> list[str]:
    marks = np.zeros(rates.shape, bool) if bold is None else bold
    shown = [(percent(rates[m, k]), marks[m, k]) for m in range(len(rates)) for k in SHOWN]
    return [f"**{text}**" if mark else text for text, mark in shown]


def as_dict(table: Table) -> dict:
    """The whole table as JSON-like values: rates by target, "mean" beside them."""
    return {
        "tests": table.tests,
        "targets": list(table.targets),
        "none": _named(table, table.none),
        "rows": [
            {"surrogate": surrogate, "method": method} | _named(table, rates)
            for (surrogate, method), rates in zip(table.rows, table.rates, strict=True)
        ],
    }


def _named(table: Table, rates: np.ndarray) -> dict:
    *single, mean = [dict(zip(KEYS, values, strict=True)) for values in with_mean(rates).tolist()]
    return {"rates": dict(zip(table.targets, single, strict=True)), "mean": mean}


def csv(table: Table, path: Path) -> None:
    """Writes a line a surrogate, method and target, whole or not at all; without a mask the
    surrogate is empty and the method "none". No means: they are the reader's to take."""
    rows = [("", "none"), *table.rows]
    rates = np.concatenate([table.none[None], table.rates]).tolist()
    lines = [
        [*row, target, *values, table.tests]
        for row, of_row in zip(rows, rates, strict=True)
        for target, values in zip(table.targets, of_row, strict=True)
    ]
    write_csv(path, ["surrogate", "method", "target", *KEYS, "tests"], lines)
