"""demo [--workdir=FOLDER] [--people=N] [--seed=N]

The whole system on what comes with the package, offline, in minutes: synthetic people, one mask
each from ten photos, five methods, three surrogates, and six black-box targets that try to find the
masked people among strangers. Writes report.html (open it in a browser), table.md, table.csv and
results.json.
"""

import json
import os
import platform
import time
from pathlib import Path

import jax
from absl import flags as absl_flags

import opom_jax
from opom_jax import laboratory
from opom_jax.cli.config import use_precision, workdir
from opom_jax.cli.progress import Progress
from opom_jax.errors import InputError
from opom_jax.evaluation import html
from opom_jax.evaluation.quality import psnr, ssim
from opom_jax.evaluation.table import Table, as_dict, csv, markdown
from opom_jax.files import cache_folder, held, writing
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import Recognizer

PROBES, DISTRACTORS = 5, 2000
SHOWN = 4  # people in the report
BEST = "OPOM-ConvexHull"
WORDS = (
    (
        "Networks",
        "Face recognisers. Those of the same name (ArcFace, CosFace) were trained with the same "
        "loss, each from its own start and on its own people.",
    ),
    ("FI-UAP, FI-UAP+", "The mask pushes each photo away from itself; from all photos."),
    (
        "OPOM",
        "It pushes each photo away from all that the person may look like: the affine hull, the "
        "centre or the convex hull of the photos' features (Zhong & Deng, TPAMI 2022).",
    ),
    ("PSNR, SSIM", "How close the masked photo is to the original; equal ones have ∞ dB and 1."),
)


def define(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Defines and parses the verb's flags; returns the arguments that are none."""
    absl_flags.DEFINE_string(
        "workdir", "opom-demo", "Folder for report and tables.", flag_values=flags
    )
    absl_flags.DEFINE_integer(
        "people", 20, "Synthetic people to protect.", 1, 200, flag_values=flags
    )
    absl_flags.DEFINE_integer(
        "seed", 0, "Of the masks' random start.", 0, 2**32 - 1, flag_values=flags
    )
    return flags(argv)[1:]


def run(flags: absl_flags.FlagValues) -> None:
    """Draws people, makes masks, evaluates them, writes the report."""
    folder = workdir(flags)
    use_precision("float32")
    with held(folder):
        if not os.access(folder, os.W_OK):
            raise InputError(f"{folder} cannot be written; choose another --workdir.")
        _run(folder, flags.people, flags.seed)


def _run(folder: Path, people: int, seed: int) -> None:
    began = time.monotonic()
    surrogates = {name: recognizer.load(folder) for name, folder in laboratory.SURROGATES.items()}
    targets = {name: recognizer.load(folder) for name, folder in laboratory.TARGETS.items()}
    photos = laboratory.synthetic_photos(
        people,
        probes=PROBES,
        distractors=DISTRACTORS,
        progress=Progress("drawing people", "photos"),
    )
    made = laboratory.every_mask(surrogates, photos, seed, Progress("making masks", "sets"))
    cache = cache_folder() / "features"
    reported = Progress("evaluating", "targets")
    table, _ = laboratory.protection(targets, photos, made, cache, reported)
    examples = _examples(targets, photos, made, cache)
    seconds = time.monotonic() - began
    _write(folder, table, examples, _facts(people, seconds))
    print(markdown(table))
    print(f"report: {folder / 'report.html'}")


def _examples(
    targets: dict[str, Recognizer], photos: laboratory.Photos, made: laboratory.Made, cache: Path
) -> list[html.Example]:
    """The first people with masks of the best method, made with the last surrogate."""
    surrogate, method = [row for row in made if row[1] == BEST][-1]
    masks = made[surrogate, method]
    masked = laboratory.masked_probes(photos, masks)[::PROBES]
    similar = {}
    for name, target in targets.items():
        clean = laboratory.clean_features(target, photos, cache)
        similar[name] = laboratory.similarities(target, clean, masked, photos.counts)
    return [
        html.Example(
            name=f"Person {k + 1}",
            surrogate=surrogate,
            method=method,
            original=photos.probes[k * PROBES],
            mask=masks[k],
            protected=masked[k],
            psnr=float(psnr(photos.probes[k * PROBES], masked[k])),
            ssim=float(ssim(photos.probes[k * PROBES], masked[k])),
            similarity={t: (float(s[k, 0]), float(s[k, 1])) for t, s in similar.items()},
        )
        for k in range(min(SHOWN, len(masks)))
    ]


def _facts(people: int, seconds: float) -> list[tuple[str, str]]:
    return [
        ("People", f"{people} synthetic people, never seen by any of the networks in training"),
        ("Photos", f"10 make each mask, {PROBES} others test it, against {DISTRACTORS} strangers"),
        ("Masks", "largest change of a value 8 of 255, 16 steps of 1 of 255, as in the paper"),
        ("Device", f"{laboratory.device()}, {os.cpu_count()} CPU cores, {platform.system()}"),
        ("Versions", f"opom-jax {opom_jax.__version__}, jax {jax.__version__}, float32"),
        ("Time", f"{seconds:.0f} s, start to end"),
    ]


def _write(folder: Path, table: Table, examples: list, facts: list[tuple[str, str]]) -> None:
    with writing(folder / "results.json") as path:
        path.write_text(json.dumps(as_dict(table) | {"facts": dict(facts)}, indent=1) + "\n")
    with writing(folder / "table.md") as path:
        path.write_text(markdown(table) + "\n")
    csv(table, folder / "table.csv")
    title = "Privacy masks at work"
    html.write(folder / "report.html", title, table, examples, facts, WORDS, DISTRACTORS)
