"""python benchmarks/zoo.py [--people=100] [--seeds=3]

No timing: the networks of the package on synthetic people whom none of them saw. Every method with
every surrogate against the six targets, a random start a seed, and random noise as strong as masks.
Prints the table of the first seed in the layout of the paper's Table 2, and for each surrogate the
mean Top-1 of each method and how far it is above FI-UAP's, person by person, with standard errors.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from opom_jax import laboratory  # noqa: E402
from opom_jax.cli.config import use_precision  # noqa: E402
from opom_jax.cli.progress import Progress  # noqa: E402
from opom_jax.evaluation.table import markdown  # noqa: E402
from opom_jax.files import cache_folder  # noqa: E402
from opom_jax.networks import recognizer  # noqa: E402

PEOPLE = flags.DEFINE_integer("people", 100, "Synthetic people.", 2, 10_000)
SEEDS = flags.DEFINE_integer("seeds", 3, "Random starts.", 1)
FIRST = flags.DEFINE_integer("first", 0, "Number of the first person.", 0, 90_000)


def main(_) -> None:
    use_precision("float32")
    photos = laboratory.synthetic_photos(
        PEOPLE.value, first=FIRST.value, progress=Progress("drawing people", "photos")
    )
    surrogates, targets = (
        {name: recognizer.load(folder) for name, folder in table.items()}
        for table in (laboratory.SURROGATES, laboratory.TARGETS)
    )
    cache, found = cache_folder() / "features", []
    for seed in range(SEEDS.value):
        made = laboratory.every_mask(surrogates, photos, seed, Progress(f"seed {seed}", "sets"))
        reported = Progress("evaluating", "targets")
        table, people = laboratory.protection(targets, photos, made, cache, reported)
        found.append(people)
        if seed == 0:
            print(markdown(table), flush=True)
    rows, everyone = table.rows, np.mean(found, 0)  # the mean over seeds, f64[rows,P]
    print("\n| surrogate | method | mean Top-1 (seeds) | above FI-UAP, paired over people |")
    print("|---|---|---|---|")
    for k, (surrogate, method) in enumerate(rows):
        base = rows.index((surrogate, "FI-UAP")) if (surrogate, method) != laboratory.NOISE else k
        apart = everyone[k] - everyone[base]
        error = apart.std(ddof=1) / len(apart) ** 0.5
        above = "-" if base == k else f"{apart.mean():+.2f} ± {error:.2f}"
        seeds = ", ".join(f"{people[k].mean():.1f}" for people in found)
        print(f"| {surrogate} | {method} | {everyone[k].mean():.1f} ({seeds}) | {above} |")


if __name__ == "__main__":
    app.run(main)
