"""python benchmarks/real_faces.py [--runs=runs] [--real=FOLDER] [--seeds=3]

OPOM on real faces, beside what the published code reaches on the same ones: converts the torch
networks of the real data, makes the masks of five methods (and momentum) with three surrogates,
evaluates them against every torch network, and prints Markdown tables. Seed 0 runs on all 56
people, further seeds on as many as the published code was run on. What is done already is not done
again. About 90 minutes on two CPU cores.
"""

import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from opom_jax.cli import main as command  # noqa: E402

RUNS = flags.DEFINE_string("runs", "runs", "Folder for networks, masks and results.")
REAL = flags.DEFINE_string(
    "real", os.environ.get("OPOM_REAL_DATA", "../shared/real"), "The real data."
)
SEEDS = flags.DEFINE_integer("seeds", 3, "Random starts.")
START = flags.DEFINE_string("start", "published", "Kind of noise: published or person.")
PEOPLE = flags.DEFINE_bool("everybody", True, "All 56 people with seed 0, not only the first n.")

_SMALL = "mobilefacenet_lh_fpga_small"
NETWORKS = {
    "xiaoccer": "mobilefacenet_xiaoccer/068.ckpt",
    "bubbliiiing": "mobilefacenet_bubbliiiing/arcface_mobilefacenet.pth",
    "foamliu": "mobilefacenet_foamliu/mobile_face.pth",
    "lh377k": f"{_SMALL}/original377k_20260222_135854_051.ckpt",
    "lh185k": f"{_SMALL}/small185k_20260222_160714_051.ckpt",
}
METHODS = {
    "FI-UAP": ("fi_uap",),
    "FI-UAP+": ("fi_uap_plus",),
    "AffineHull": ("affine_hull",),
    "ClassCenter": ("class_center",),
    "ConvexHull": ("convex_hull",),
    "Momentum50": ("convex_hull", "--config.momentum=1.0", "--config.steps=50"),
}
SURROGATES = ("xiaoccer", "bubbliiiing", "foamliu")


class Cell(NamedTuple):
    """One run: who makes the masks, how, for how many people (0: all), from which start."""

    surrogate: str
    method: str
    people: int
    seed: int

    @property
    def workdir(self) -> Path:
        name = METHODS[self.method][0] if self.method != "Momentum50" else "momentum50"
        return Path(RUNS.value) / f"{self.surrogate}-{name}-{START.value}-s{self.seed}"


def cells(baseline: dict) -> Iterator[Cell]:
    """Seed 0 of the five methods on everybody; the rest on the people the published code had."""
    for seed in range(SEEDS.value):
        for surrogate in SURROGATES:
            for method in METHODS:
                like = method if method == "Momentum50" else "ConvexHull"
                published = max(len(people) for people in baseline[surrogate][like].values())
                everyone = PEOPLE.value and seed == 0 and method != "Momentum50"
                yield Cell(surrogate, method, 0 if everyone else published, seed)


def run(*arguments: str) -> None:
    """One command of the package; stops the script if it is refused."""
    print("$ opom-jax", *arguments, file=sys.stderr)
    if command(["opom-jax", *arguments]):
        sys.exit(1)


def networks() -> dict[str, Path]:
    """The converted networks."""
    folders = {name: Path(RUNS.value) / "nets" / name for name in NETWORKS}
    for name, folder in folders.items():
        if not folder.exists():
            weights = f"{REAL.value}/weights/{NETWORKS[name]}"
            run(
                "convert",
                f"--weights={weights}",
                f"--network=mobilefacenet_{name}",
                f"--out={folder}",
            )
    return folders


def make(cell: Cell, nets: dict[str, Path]) -> None:
    """Masks and rates of one cell."""
    if (cell.workdir / "results.json").exists():
        return
    faces = f"{REAL.value}/faces_112"
    method, *extra = METHODS[cell.method]
    shared = (
        f"--workdir={cell.workdir}",
        f"--config.data.people={faces}/lfw",
        f"--config.data.limit={cell.people}",
    )
    run(
        "generate",
        *shared,
        f"--config.surrogate={nets[cell.surrogate]}",
        f"--config.method={method}",
        f"--config.seed={cell.seed}",
        f"--config.start={START.value}",
        *extra,
    )
    targets = ",".join(map(str, nets.values()))
    distractors = f"--config.data.distractors={faces}/lfw_distractors"
    run("evaluate", *shared, distractors, f"--config.targets={targets}")


def counts(cell: Cell) -> dict[str, dict[str, np.ndarray]]:
    """row -> target -> i64[P,4]: tests, identified at 1, 5, 10, a person a line."""
    found: dict[str, dict[str, list]] = {"none": {}, "masked": {}}
    with open(cell.workdir / "people.csv", newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            row = [int(line[k]) for k in ("tests", "identified1", "identified5", "identified10")]
            found[line["row"]].setdefault(line["target"], []).append(row)
    return {row: {t: np.array(v) for t, v in of.items()} for row, of in found.items()}


def top1(table: np.ndarray) -> float:
    """Pooled Top-1 protection in percent of i64[P,4]."""
    return 100 - 100 * table[:, 1].sum() / table[:, 0].sum()


def black_box(surrogate: str, published: bool) -> list[str]:
    """The torch targets of a mean; those the published code was run on, or all."""
    names = [t for t in NETWORKS if t != surrogate]
    return [t for t in names if t != "lh185k"] if published else names


def comparison(baseline: dict) -> None:
    """Our mean Top-1 over seeds beside the published code's, on the same people."""
    print("| surrogate | method | n | published | ours (seeds) | difference | paired difference |")
    print("|---|---|---|---|---|---|---|")
    for surrogate in SURROGATES:
        targets = black_box(surrogate, published=True)
        for method in METHODS:
            theirs = {t: _rows(v) for t, v in baseline[surrogate].get(method, {}).items()}
            if not theirs:
                continue
            n = len(theirs[targets[0]])
            limit = [c for c in cells(baseline) if (c.surrogate, c.method) == (surrogate, method)]
            masked = [counts(cell)["masked"] for cell in limit]
            seeds = [np.mean([top1(m[t][:n]) for t in targets]) for m in masked]
            published = np.mean([top1(theirs[t]) for t in targets])
            apart = _paired(theirs, masked, targets, n)
            print(
                f"| {surrogate} | {method} | {n} | {published:.1f} | {np.mean(seeds):.1f} "
                f"({', '.join(f'{s:.1f}' for s in seeds)}) | {np.mean(seeds) - published:+.1f} "
                f"| {apart.mean():+.1f} ± {apart.std(ddof=1) / n**0.5:.1f} |"
            )


def _rows(people: dict[str, list[int]]) -> np.ndarray:
    return np.array([people[k] for k in sorted(people, key=int)])


def _paired(theirs: dict, masked: list[dict], targets: list[str], n: int) -> np.ndarray:
    """f64[n]: difference of each person's Top-1 protection, ours (mean of seeds) - published."""

    def protection(tables):
        return np.mean([100 - 100 * tables[t][:n, 1] / tables[t][:n, 0] for t in targets], 0)

    return np.mean([protection(m) for m in masked], 0) - protection(theirs)


def everybody() -> None:
    """Top-1 of every method on all 56 people, seed 0, target by target."""
    print("| surrogate | method | " + " | ".join(NETWORKS) + " | mean of black boxes |")
    print("|---|---|" + "---|" * (len(NETWORKS) + 1))
    for surrogate in SURROGATES:
        for method in [m for m in METHODS if m != "Momentum50"]:
            found = counts(Cell(surrogate, method, 0, 0))
            for row, name in (("none", "no mask"), ("masked", method)):
                if row == "none" and (surrogate, method) != (SURROGATES[0], "FI-UAP"):
                    continue
                rates = {t: top1(v) for t, v in found[row].items()}
                white = surrogate if row == "masked" else None
                cells_ = [f"{r:.1f}{'*' if t == white else ''}" for t, r in rates.items()]
                mean = np.mean([r for t, r in rates.items() if t != white])
                first = "-" if row == "none" else surrogate
                print(f"| {first} | {name} | {' | '.join(cells_)} | {mean:.1f} |")


def main(_) -> None:
    with open(f"{REAL.value}/baseline_counts.json", encoding="utf-8") as file:
        baseline = json.load(file)
    nets = networks()
    for cell in cells(baseline):
        make(cell, nets)
    if PEOPLE.value:
        everybody()
        print()
    comparison(baseline)


if __name__ == "__main__":
    app.run(main)
