"""evaluate --workdir=FOLDER [--config=FILE] --config.targets=NETWORK,NETWORK,...

Measures how well the masks of WORKDIR protect the probes of `config.data` against target networks,
and how well no mask does; prints a table and writes results.json, results.csv and people.csv, and
evaluation.json: what was measured of what.
With --config.gallery=protected also whether a masked photo finds the person's other masked photos,
as when the mask is on everything that was ever published (the M-M of Table 6). Of diverse masks the
rates are means over masks, and the photo that is looked for has the next mask. The mean leaves out
targets that are the surrogate itself (marked *): the network that generate recorded and, if
--config.surrogate names it here too, its weights converted from other files.

With --config.data.pairs=FILE also 1:1 verification: a line names two photos, relative to
`config.data.root` (or `people`), and 1 (one person) or 0 (two). The first gets the mask of the
person whose photo it is; verification.json and roc_<target>.csv are written.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags as absl_flags

from opom_jax.cli import config as options
from opom_jax.cli import verify
from opom_jax.cli.made import (
    MadeOf,
    diverse_of,
    made_from,
    run_of,
    surrogates_of,
    white_box,
)
from opom_jax.cli.photos import pixels, under_masks
from opom_jax.cli.progress import Progress
from opom_jax.data import images
from opom_jax.data.people import Paths, Person, flat_images
from opom_jax.errors import InputError
from opom_jax.evaluation import report
from opom_jax.evaluation.features import cached, check_features, extractor
from opom_jax.evaluation.identification import Ranks, pooled, ranks
from opom_jax.files import cache_folder, locked
from opom_jax.masks.store import epsilon_of, mask_path, mask_paths, read_mask
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import Recognizer

RESUMES = True
FEW = 8  # probes by which a target is known to be the surrogate
MEANINGFUL = 25.0  # percent of Top-1 protection without masks above which a table says little


def define(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Defines and parses the verb's flags; returns the arguments that are none."""
    return options.define(flags, argv, "Folder with masks/; receives the results.")


class Work(NamedTuple):
    """What is measured, checked.

    Attributes:
      people: with their probes.
      masks: files, M tuples with one of each person; M is 1 but of diverse masks.
      photos: "probes", "distractors" and, if asked for, "pairs".
      digests: of each, see `images.inspect`.
      trial: of 1:1 verification, or None.
    """

    people: Sequence[Person]
    masks: Sequence[Sequence[Path]]
    photos: dict[str, Sequence[Path]]
    digests: dict[str, str]
    trial: verify.Trial | None


def run(flags: absl_flags.FlagValues) -> None:
    """Checks everything, evaluates target by target, prints the table."""
    config, workdir = flags.config, options.workdir(flags)
    options.settings(config)
    options.use_precision(config.precision)
    targets = _targets(config)
    surrogates = surrogates_of(workdir, config)
    work = _checked(config, workdir)
    few = list(pixels(work.photos["probes"][:FEW], config.data)) if surrogates else []
    itself = white_box(workdir, targets, surrogates, few)
    with locked(workdir):
        _write(config, workdir, targets, work, itself)


def _write(
    config: options.Config,
    workdir: Path,
    targets: Sequence[Recognizer],
    work: Work,
    itself: Sequence[str],
) -> None:
    """Measures, writes and prints the results; `itself` are the targets that made the masks."""
    results: report.Results = {}
    lines: dict[str, list[list]] = {}
    verified: dict[str, verify.Scores] = {}
    for network in targets:
        found, scores = _measure(network, work, config)
        results[network.name] = {row: report.rates(found[row]) for row in found}
        names = [person.name for person in work.people]
        lines[network.name] = report.people_lines(network.name, found, names)
        if scores:
            verified[network.name] = scores
    black_box = [t.name for t in targets if t.name not in itself]
    results["mean"] = report.mean(results, black_box or itself)
    report.write(workdir, results, lines, _record(config, work, targets))
    print(report.markdown(results, itself))
    if work.trial:
        print(f"\n{verify.report(workdir, work.trial, verified, itself)}\n")
    print(f"results: {workdir / 'results.json'}")


def _checked(config: options.Config, workdir: Path) -> Work:
    """Everything that can be wrong with people, masks and photos is found here."""
    data = config.data
    people = options.load_people(data)
    diverse, made = diverse_of(workdir), made_from(workdir)
    _check_people(people, workdir, made, data.image_size, diverse)
    if not os.access(workdir, os.W_OK):
        raise InputError(f"{workdir} cannot be written, where the results go; change its rights.")
    if not data.distractors:
        raise InputError("config.data.distractors is missing; name a folder or a list of images.")
    list_format = data.distractors_format or data.list_format
    photos: dict[str, Sequence[Path]] = {
        "probes": Paths(path for person in people for path in person.probes),
        "distractors": flat_images(data.distractors, data.root, list_format),
    }
    trial = verify.load(data, people)
    _check_photos(people, workdir, made, data)
    if trial:
        photos["pairs"] = trial.pairs.photos
    digests = {
        what: images.inspect(
            paths, data.image_size, data.resize, progress=Progress(f"checking {what}", "photos")
        )
        for what, paths in photos.items()
    }
    masks = zip(*(mask_paths(workdir, k, diverse) for k in range(len(people))), strict=True)
    return Work(people, list(masks), photos, digests, trial)


def _measure(
    network: Recognizer, work: Work, config: options.Config
) -> tuple[dict[str, Ranks], verify.Scores | None]:
    """Ranks of every row of the table for one target, and its scores of 1:1 verification."""
    extract = extractor(network)

    def features(what: str) -> np.ndarray:
        key = {
            "network": network.digest,
            "preprocessing": network.spec.card(),
            "images": work.digests[what],
            "size": config.data.image_size,
            "precision": config.precision,
        }
        shape = len(work.photos[what]), network.spec.embedding
        fill = lambda out: extract(pixels(work.photos[what], config.data), out)  # noqa: E731
        return cached(cache_folder() / "features", key, shape, fill)

    def masked(paths: Sequence[Path], owners: Sequence[int]) -> list[np.ndarray]:
        each = ([own[k] for k in owners] for own in work.masks)
        return [extract(under_masks(paths, own, config)) for own in each]

    counts = [len(person.probes) for person in work.people]
    clean, others = features("probes"), features("distractors")
    owners = [k for k, count in enumerate(counts) for _ in range(count)]
    check_features(network.name, clean, others)
    found = {"none": ranks(clean, clean, counts, others)}
    _warn(network.name, report.rates(found["none"])["top1"])
    hidden = masked(work.photos["probes"], owners)
    check_features(network.name, *hidden)
    rows = {"masked": [(own, clean) for own in hidden]}
    if config.gallery == "protected":
        rows["protected"] = list(zip(hidden, hidden[1:] + hidden[:1], strict=True))
    found |= {row: pooled(ranks(*p, counts, others) for p in of) for row, of in rows.items()}
    if not work.trial:
        return found, None
    under = masked(work.trial.probes, work.trial.owners)
    return found, verify.scores(work.trial, features("pairs"), under)


def _record(config: options.Config, work: Work, targets: Sequence[Recognizer]) -> dict:
    """What evaluation.json says."""
    return {
        "data": config.data.to_dict(),
        "photos_sha256": work.digests,
        "targets": {network.name: network.digest for network in targets},
        "precision": config.precision,
        "rounding": config.rounding,
        "gallery": config.gallery,
    }


def _warn(target: str, unprotected: float) -> None:
    if unprotected > MEANINGFUL:
        print(
            f"warning: {target} does not find {unprotected:.0f} % even without masks: are photos "
            "aligned, people not among the distractors, is it converted with its own "
            "preprocessing?",
            file=sys.stderr,
        )


def _targets(config) -> list[Recognizer]:
    folders = [f.strip() for entry in config.targets for f in entry.split(",") if f.strip()]
    if not folders:
        raise InputError("config.targets is missing; name folders of converted networks.")
    targets = [recognizer.load(folder, config.precision) for folder in folders]
    names = [target.name for target in targets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"config.targets names {twice[0]!r} twice; rename or remove one folder.")
    if "mean" in names:
        raise InputError("A folder of config.targets is called 'mean', as the mean is; rename it.")
    return targets


def _check_people(
    people: Sequence[Person], workdir: Path, made: dict[int, MadeOf], size: int, diverse: int
) -> None:
    """Every person has two probes and masks that were made for them."""
    epsilon = epsilon_of(run_of(workdir))
    for k, person in enumerate(people):
        if len(person.probes) < 2:
            raise InputError(
                f"{person.name} has {len(person.probes)} test photos, needs 2 or more; lower "
                "config.data.train_per_person, name a config.data.test_list, or leave them out."
            )
        name, photos, _ = made.get(k, (person.name, len(person.train), ""))
        if (name, photos) != (person.name, len(person.train)):
            raise InputError(
                f"{mask_path(workdir, k)} was made from {photos} photos of {name}, not from "
                f"{len(person.train)} of {person.name}; evaluate with the config.data of generate."
            )
        for path in mask_paths(workdir, k, diverse):
            read_mask(path, size, epsilon)


def _check_photos(
    people: Sequence[Person], workdir: Path, made: dict[int, MadeOf], data: options.Config
) -> None:
    """The training photos are those that masks were made of: else probes might be among these."""
    known = [k for k in range(len(people)) if k in made and made[k].digest]
    photos = (people[k].train for k in known)
    progress = Progress("checking photos of masks", "people")
    digests = images.inspect_each(photos, data.image_size, data.resize)
    for done, (k, digest) in enumerate(zip(known, digests, strict=True), 1):
        if digest != made[k].digest:
            raise InputError(
                f"The training photos of {people[k].name} are not those that "
                f"{mask_path(workdir, k)} was made of; evaluate with the config.data and the "
                "photos of generate."
            )
        progress(done, len(known))
