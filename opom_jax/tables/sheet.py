"""A finished table or figure: Markdown on the screen, CSV and PNG in a folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from opom_jax.evaluation.report import write_csv
from opom_jax.files import writing


class Sheet(NamedTuple):
    """What a function of `TABLES` or `FIGURES` returns.

    Attributes:
      title: one line.
      head, lines: as shown.
      columns, values: as data, one measurement a line.
      notes: sentences under the table.
      draw: onto an empty matplotlib figure.
    """

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    columns: Sequence[str]
    values: Sequence[Sequence]
    notes: Sequence[str]
    draw: Callable[[Any], None]


def markdown(sheet: Sheet) -> str:
    """The table as shown, title first and notes last."""
    rule = ["--:" if k > 1 else "---" for k in range(len(sheet.head))]
    rows = [sheet.head, rule, *sheet.lines]
    body = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return "\n\n".join([f"## {sheet.title}", body, *sheet.notes]) + "\n"


def write(sheet: Sheet, folder: Path, name: str) -> None:
    """Writes NAME.md, NAME.csv and NAME.png, each whole or not at all; none if it cannot be drawn.

    Raises:
      InputError: the folder cannot be written.
    """
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(9, 5), layout="constrained")
    sheet.draw(figure)
    with writing(folder / f"{name}.png") as path:
        figure.savefig(path, format="png", dpi=120)
    with writing(folder / f"{name}.md") as path:
        path.write_text(markdown(sheet), encoding="utf-8")
    write_csv(folder / f"{name}.csv", sheet.columns, sheet.values)


def bars(figure, groups: dict[str, dict[str, tuple[float, float]]], label: str) -> None:
    """Bars with error bars: {group: {bar: (height, error)}}, a colour a bar."""
    axes = figure.subplots()
    names = list(dict.fromkeys(name for of in groups.values() for name in of))
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        at = [
            g + (k - (len(names) - 1) / 2) * width
            for g, of in enumerate(groups.values())
            if name in of
        ]
        heights, errors = zip(*[of[name] for of in groups.values() if name in of], strict=True)
        axes.bar(at, heights, width, yerr=errors, capsize=2, label=name, color=f"C{k % 10}")
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylabel(label)
    figure.legend(loc="outside upper center", fontsize=8, ncols=5)
