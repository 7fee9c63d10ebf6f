"""Tables of protection rates: JSON, CSV and Markdown."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from opom_jax.evaluation.identification import TOP, Ranks
from opom_jax.files import ELSEWHERE, writing

# target -> row ("none" or "masked") -> {"top1", "top5", "top10": percent, "tests": count}
Results = dict[str, dict[str, dict[str, float]]]


def rates(found: Ranks) -> dict[str, float]:
    """The protection rates of one row, in percent, and the number of tests."""
    named = zip((f"top{k}" for k in TOP), found.protection().tolist(), strict=True)
    return {**dict(named), "tests": len(found.rank)}


def people_lines(target: str, found: Mapping[str, Ranks], names: Sequence[str]) -> list[list]:
    """The lines of people.csv of one target, row by row."""
    return [
        [target, row, k, names[k], *counts.tolist()]
        for row, of in found.items()
        for k, counts in enumerate(of.per_person())
    ]


def mean(results: Results, targets: Iterable[str]) -> dict[str, dict[str, float]]:
    """The mean of each rate over some targets, row by row, and the sum of their tests."""
    chosen = [results[target] for target in targets]
    return {
        row: {
            key: total if key == "tests" else total / len(chosen)
            for key in chosen[0][row]
            for total in [sum(r[row][key] for r in chosen)]
        }
        for row in chosen[0]
    }


def markdown(results: Results, white_box: Sequence[str] = ()) -> str:
    """A table: a line for each row and k, a column a target; `*` marks the surrogate itself."""
    names = [plain(name) + "*" * (name in white_box) for name in results]
    lines = [
        "| protection, % | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for row in next(iter(results.values())):
        for k in TOP:
            cells = " | ".join(f"{results[name][row][f'top{k}']:.1f}" for name in results)
            lines.append(f"| {row}, Top-{k} | {cells} |")
    if white_box:
        others = {*results} - {"mean", *white_box}
        more = ", not in the mean" if others else "; no other target was named"
        lines.append(f"\n`*`: the surrogate itself{more}")
    return "\n".join(lines)


def plain(name: str) -> str:
    """A name that cannot break a table: one line, Markdown's signs escaped."""
    return re.sub(r"([\\`*_~<>|\[\]])", r"\\\1", " ".join(name.split()))


def write(
    workdir: Path, results: Results, people: Mapping[str, Sequence[Sequence]], record: dict
) -> None:
    """Writes results.json, results.csv, people.csv and evaluation.json, each whole or not at all.

    Args:
      workdir: an existing folder.
      results: rates in percent.
      people: CSV lines of people.csv without the header, by target and row.
      record: JSON-like, what decided the results.
    """
    for name, content in (("results", results), ("evaluation", record)):
        write_json(workdir / f"{name}.json", content)
    keys = [*(f"top{k}" for k in TOP), "tests"]
    lines = [
        [target, row, *(rates[key] for key in keys)]
        for target, rows in results.items()
        for row, rates in rows.items()
    ]
    write_csv(workdir / "results.csv", ["target", "row", *keys], lines)
    header = ["target", "row", "id", "name", "tests", *(f"identified{k}" for k in TOP)]
    write_csv(workdir / "people.csv", header, [line for group in people.values() for line in group])


def write_json(path: Path, content: Mapping) -> None:
    """Writes a JSON-like mapping, whole or not at all."""
    with writing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def write_csv(
    path: Path, header: Sequence[str], lines: Iterable[Sequence], mend: str = ELSEWHERE
) -> None:
    """Writes a header and lines as CSV, whole or not at all; `mend` as in `files.writing`."""
    with (
        writing(path, mend=mend) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([header, *lines])
