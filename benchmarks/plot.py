"""python benchmarks/plot.py [--results=benchmarks/results --out=docs/performance.png]

Draws what the CSVs hold: seconds a person of every program, seconds a test of the evaluation, masks
a second by devices and processes, peak memory by people. Medians of the rounds.
"""

import csv
from collections import defaultdict
from pathlib import Path
from statistics import median

from absl import app, flags
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]

FLAGS = flags.FLAGS
flags.DEFINE_string("results", str(ROOT / "benchmarks" / "results"), "Folder of the CSVs.")
flags.DEFINE_string("out", str(ROOT / "docs" / "performance.png"), "The picture.")

# Title -> (CSVs, what names a bar, its number, its unit, whether the axis is logarithmic).
PANELS = {
    "Masks, MobileFaceNet": ("generate_xiaoccer_*", "program", "seconds_per_person", "s", False),
    "Masks, IR-50": ("generate_ir_50_*", "program", "seconds_per_person", "s", False),
    "1:N, 13,233 distractors": ("evaluate_13233_[!o]*", "program", "seconds_per_test", "s", True),
    "Simplex QPs": ("simplex_*", "program", "solves_per_s", "1/s", True),
    "Devices x processes": ("scaling_*", "kind", "masks_per_second", "1/s", False),
    "Peak memory by people": ("memory_*", "people", "peak_mib", "MiB", False),
}


def medians(pattern: str, name: str, number: str) -> dict[str, float]:
    """{bar: median over the rows of all CSVs of this name}."""
    found = defaultdict(list)
    for path in sorted(Path(FLAGS.results).glob(f"{pattern}.csv")):
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                row["kind"] = f"{row.get('devices')} x {row.get('processes')}"
                found[row[name]].append(float(row[number]))
    return {bar: median(values) for bar, values in found.items()}


def main(argv: list[str]) -> None:
    """Draws the panels that have numbers."""
    del argv
    data = {title: medians(*panel[:3]) for title, panel in PANELS.items()}
    shown = {title: bars for title, bars in data.items() if bars}
    figure = Figure(figsize=(11, 1.1 + 2.2 * -(-len(shown) // 2)), layout="constrained")
    axes = figure.subplots(-(-len(shown) // 2), 2, squeeze=False).ravel()
    for axis, (title, bars) in zip(axes, shown.items(), strict=False):
        *_, unit, logarithmic = PANELS[title]
        drawn = axis.barh(list(bars), list(bars.values()), color="#4878a8")
        axis.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
        axis.set(title=title, xlabel=unit, xscale="log" if logarithmic else "linear")
        axis.invert_yaxis()
        axis.margins(x=0.15)
        axis.tick_params(labelsize=8)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    figure.savefig(FLAGS.out, dpi=110)
    print(FLAGS.out)


if __name__ == "__main__":
    app.run(main)
