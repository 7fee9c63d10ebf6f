"""1:1 verification, a part of `evaluate`: is a masked photo still taken for its person?

Of every pair of `config.data.pairs` the first photo gets the mask of its person, the second is as
it is. Thresholds are those that let 0.1, 1 and 10 % of the pairs of two people pass while no photo
has a mask, as a system fixed them that knows no masks.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from opom_jax.cli.config import Config
from opom_jax.data.pairs import Pairs, owners, read_pairs
from opom_jax.data.people import Person
from opom_jax.evaluation.report import plain, write_csv, write_json
from opom_jax.evaluation.verification import (
    RATES,
    reached,
    similarities,
    threshold_at,
    verification,
)


class Trial(NamedTuple):
    """Pairs, and who is masked.

    Attributes:
      pairs: K of them.
      probes: the first photos, each once.
      owners: whose mask each probe gets, numbers of people.
      probe: i64[K], place of a pair's first photo in `probes`.
      trained: pairs whose first photo is one of those that its person's mask was made of.
    """

    pairs: Pairs
    probes: tuple[Path, ...]
    owners: tuple[int, ...]
    probe: np.ndarray
    trained: int


class Scores(NamedTuple):
    """Cosine similarities of the pairs of a trial, for one target: f64[1,K] without masks, and
    f64[M,K] with the first photo under each of its person's M masks."""

    none: np.ndarray
    masked: np.ndarray


def load(data: Config, people: Sequence[Person]) -> Trial | None:
    """The pairs of a configuration's `data`, None if it names none; InputError by list and line."""
    if not data.pairs:
        return None
    pairs = read_pairs(data.pairs, data.root or data.people, data.pairs_format)
    owner = owners(pairs, people)
    places, probe = np.unique(pairs.first, return_inverse=True)
    probes = tuple(pairs.photos[place] for place in places)
    whose = tuple(owner[place] for place in places)
    train = {os.path.realpath(path) for person in people for path in person.train}
    seen = np.array([os.path.realpath(path) in train for path in probes])
    return Trial(pairs, probes, whose, probe, int(seen[probe].sum()))


def scores(trial: Trial, clean: np.ndarray, masked: Sequence[np.ndarray]) -> Scores:
    """From unit features f32[B,D] of all photos of the pairs, and of the probes under each mask."""
    second = clean[trial.pairs.second]
    none = similarities(clean[trial.pairs.first], second)
    return Scores(none[None], np.stack([similarities(m[trial.probe], second) for m in masked]))


def report(
    workdir: Path, trial: Trial, found: Mapping[str, Scores], white_box: Sequence[str] = ()
) -> str:
    """Writes verification.json and roc_<target>.csv; returns a Markdown table of all targets, `*`
    marking the surrogate itself."""
    same = trial.pairs.same
    results = {target: _results(own, same) for target, own in found.items()}
    write_json(workdir / "verification.json", results)
    for target, own in found.items():
        header = ["threshold", "far_none", "tar_none", "far_masked", "tar_masked"]
        write_csv(workdir / f"roc_{target}.csv", header, _curves(own, same))
    return _markdown(results, white_box) + _trained(trial)


def _trained(trial: Trial) -> str:
    if not trial.trained:
        return ""
    count = f"{trial.trained} of {len(trial.probe)} pairs"
    return f"\nin {count} the mask was made of the photo that it is on; new photos may fare worse"


def _results(found: Scores, same: np.ndarray) -> dict[str, Any]:
    """What verification.json holds of a target; rates in percent."""
    thresholds = threshold_at(found.none[0, ~same])
    names = [f"{100 * rate:g}" for rate in RATES]
    results: dict[str, Any] = {
        "genuine_pairs": int(same.sum()),
        "impostor_pairs": int((~same).sum()),
        "thresholds": dict(zip(names, thresholds.tolist(), strict=True)),
    }
    for row, own in found._asdict().items():
        fares = verification(own[:, same].ravel(), own[:, ~same].ravel(), thresholds)
        results[row] = {"genuine": fares.genuine, "impostor": fares.impostor}
        for what in ("tar", "far"):
            shares = 100 * getattr(fares, what)
            results[row] |= {f"{what}@{n}%": s for n, s in zip(names, shares.tolist(), strict=True)}
        results[row]["auc"] = fares.auc
    return results


def _curves(found: Scores, same: np.ndarray) -> list[list[float]]:
    """FAR and TAR (0..1), of both rows, at every threshold at which one of them changes."""
    thresholds = np.append(np.inf, np.unique(np.concatenate(found))[::-1])
    shares = [reached(own[:, of].ravel(), thresholds) for own in found for of in (~same, same)]
    return np.stack([thresholds, *shares], 1).tolist()


def _markdown(results: Mapping[str, dict[str, Any]], white_box: Sequence[str]) -> str:
    names = [plain(name) + "*" * (name in white_box) for name in results]
    lines = ["| verification | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    labels = {"genuine": "similarity, one person", "impostor": "similarity, two people"}
    labels |= {f"tar@{100 * r:g}%": f"TAR at FAR {100 * r:g} %, %" for r in RATES}
    for row in Scores._fields:
        for key, label in (labels | {"auc": "area under the ROC"}).items():
            form = ".1f" if key.startswith("tar") else ".3f"
            cells = " | ".join(f"{own[row][key]:{form}}" for own in results.values())
            lines.append(f"| {row}, {label} | {cells} |")
    impostors = next(iter(results.values()))["impostor_pairs"]
    lines.append("\nthresholds: fixed on the pairs without masks")
    if impostors < (most := round(1 / min(RATES))):
        lines[-1] += f"; with {impostors} pairs of two people, below {most}, low FARs mean none"
    return "\n".join(lines)
