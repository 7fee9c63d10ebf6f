"""models list [--format=text|markdown|csv|json]
models fetch NAME
models check NAME|FOLDER [--faces=FOLDER] [--alternatives]

list: every network, where its weights come from, and whether it is here. fetch: downloads and
converts one whose weights are public (SHA-256 known); it is `models:NAME` from then on, wherever a
network's folder is asked for. check: how well a network separates the people of a folder with a
folder per person, or synthetic people if none is named, and whether its preprocessing looks right.
"""

import dataclasses
import difflib
import itertools
from pathlib import Path

import numpy as np
from absl import flags as absl_flags

from converters.catalogue import PUBLIC, Public
from converters.convert import SCALINGS, convert, convert_graph, pixels
from converters.fetch import download
from converters.listing import FORMATS, rows, scaling
from opom_jax.cli import refuse
from opom_jax.cli.config import use_precision
from opom_jax.cli.progress import Progress
from opom_jax.data import images, people, synthetic
from opom_jax.errors import InputError
from opom_jax.evaluation.features import batches, check_features, extractor
from opom_jax.evaluation.separation import FAR, Separation, Spread, disguised, separation
from opom_jax.files import cache_folder, held, private_folder
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import Recognizer
from opom_jax.networks.registry import CHANNELS, NETWORKS

RESUMES = True
FEW = 128  # photos on which other preprocessings are tried
BETTER = 1.05  # times the margin, from which another preprocessing is worth a word
UNSEEN = range(50_000, 50_020)  # synthetic people whom no network of the package was trained on


def define(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Defines and parses the verb's flags; returns the arguments that are none."""
    string, integer = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    absl_flags.DEFINE_enum(
        "action", None, list(ACTIONS), "The first word, if not given so.", flag_values=flags
    )
    string("name", None, "The second word, if not given so.", flag_values=flags)
    absl_flags.DEFINE_enum("format", "text", list(FORMATS), "Of list.", flag_values=flags)
    string("faces", None, "Folder with a folder per person.", flag_values=flags)
    integer("people", 100, "So many of them at most, by name.", 2, 500, flag_values=flags)
    integer("photos", 10, "So many of each at most.", 2, 20, flag_values=flags)
    integer("size", 112, "Side of the photos.", 16, 1024, flag_values=flags)
    absl_flags.DEFINE_boolean("resize", False, "Take photos of other sizes.", flag_values=flags)
    absl_flags.DEFINE_boolean(
        "alternatives", False, "Try other channels and scalings in any case.", flag_values=flags
    )
    words = flags(argv)[1:]
    takes = ("action",) if words[:1] == ["list"] else ("action", "name")
    for flag, word in zip(takes, words, strict=False):
        flags[flag].parse(word)
    return words[len(takes) :]


def run(flags: absl_flags.FlagValues) -> None:
    """Does what the first word says."""
    if flags.action is None:
        raise InputError(f"What to do is missing; choose from {', '.join(ACTIONS)}.")
    if flags.action != "list" and not flags.name:
        raise InputError(f"models {flags.action} needs a network; see `models list`.")
    others = {flag for own in FLAGS.values() for flag in own} - {*FLAGS[flags.action]}
    refuse(flags, sorted(others), f"models {flags.action}")
    if not flags.faces:
        refuse(flags, OF_FACES, f"models {flags.action} without --faces")
    ACTIONS[flags.action](flags)


def _list(flags: absl_flags.FlagValues) -> None:
    print(FORMATS[flags.format](rows()))


def _fetch(flags: absl_flags.FlagValues) -> None:
    name = flags.name.removeprefix("models:")
    public = _public(name)
    shelf, downloads = recognizer.fetched(), cache_folder() / "downloads"
    for folder in (shelf, downloads):
        if not private_folder(folder):
            raise InputError(
                f"{folder} cannot be made, or others may use it; set XDG_CACHE_HOME to a folder of "
                "yours, or its rights to 700."
            )
    with held(downloads / name):
        if name in recognizer.on_shelf(shelf):
            said = "is there already"
        else:
            said = f"fetched from {public.repository} (licence: {public.licence})"
            _make(name, public, shelf, downloads / name)
    print(f"models:{name} {said}: {shelf / name}")


def _public(name: str) -> Public:
    if name in PUBLIC:
        return PUBLIC[name]
    if name in NETWORKS:
        (get,) = (row.get for row in rows() if row.name == name)
        raise InputError(f"{name} is in no public place that is known here; instead: {get}.")
    near = difflib.get_close_matches(name, PUBLIC, cutoff=0.4) or list(PUBLIC)
    raise InputError(f"No network {name!r} can be fetched; did you mean {' or '.join(near)}?")


def _make(name: str, public: Public, shelf: Path, downloads: Path) -> None:
    paths = [downloads / Path(file.path).name for file in public.files]
    for file, path in zip(public.files, paths, strict=True):
        progress = Progress(f"fetching {path.name}", "bytes")
        download(public.url(file), path, file.size, file.sha256, progress)
    if public.graph:
        symbol = paths[1] if len(paths) > 1 else None
        convert_graph(paths[0], shelf / name, symbol=symbol, scaling=public.scaling)
    else:
        convert(paths[0], name, shelf / name)


def _check(flags: absl_flags.FlagValues) -> None:
    use_precision("float32")
    known = flags.name in PUBLIC and not Path(flags.name).exists()
    network = recognizer.load(f"models:{flags.name}" if known else flags.name)
    if flags.faces:
        photos, labels = _faces(flags)
    else:
        photos = synthetic.photos(UNSEEN, 5, progress=Progress("drawing people", "photos"))
        photos, labels = photos.reshape(-1, *photos.shape[2:]), np.repeat(np.arange(len(photos)), 5)
    features = _features(network, photos, Progress("checking", "photos"))
    check_features(network.name, features)
    found = separation(features, labels)
    print(_report(network, found))
    if not flags.faces:
        print("These people are synthetic; networks of real faces are not made for them: --faces.")
    if found.suspicious:
        print(
            "These are not the figures of a network that recognises faces: check that the photos "
            "are aligned and that channels and scaling are those it was trained with."
        )
    if flags.alternatives or found.suspicious:
        several = np.flatnonzero(np.bincount(labels)[labels] > 1)[:FEW]  # photos of the person
        print(_best(network, photos[several], labels[several]))


def _faces(flags: absl_flags.FlagValues) -> tuple[np.ndarray, np.ndarray]:
    """Photos u8[N,H,W,3] and the number of each one's person i64[N]."""
    found = people.from_folder(flags.faces, flags.photos, flags.people)
    if sum(len(person.train) > 1 for person in found) < 2:
        raise InputError(f"{flags.faces} needs two people with two photos each or more; add some.")
    paths = [path for person in found for path in person.train]
    read = np.concatenate(list(images.read_batches(batches(paths), flags.size, flags.resize)))
    return read, np.repeat(np.arange(len(found)), [len(person.train) for person in found])


def _features(
    network: Recognizer, photos: np.ndarray, progress: Progress | None = None
) -> np.ndarray:
    def advancing():
        done = 0
        for batch in batches(photos):
            yield batch.astype(np.float32)  # one type, one compilation
            done += len(batch)
            if progress:
                progress(done, len(photos))

    return extractor(network)(advancing())


def _report(network: Recognizer, found: Separation) -> str:
    spec = network.spec

    def said(spread: Spread) -> str:
        return f"mean cosine {spread.mean:.3f}, 90 % in {spread.low:.3f} to {spread.high:.3f}"

    lines = {
        "network": f"{network.name}, {spec.embedding} numbers",
        "preprocessing": f"{spec.channels}, {scaling(spec)}",
        "photos": f"{found.photos} of {found.people} people",
        "one person": said(found.same),
        "two people": said(found.other),
        "rank-1": f"{100 * found.rank_1:.1f} % of {found.probes}, one photo each in the gallery",
        f"TAR at FAR {FAR:g}": f"{100 * found.tar:.1f} %",
        "margin (d')": f"{found.margin:.2f}",
    }
    return "\n".join(f"{name:16} {value}" for name, value in lines.items())


def _best(network: Recognizer, photos: np.ndarray, labels: np.ndarray) -> str:
    """Which of the known preprocessings separates these photos best."""
    margins, progress = {}, Progress("checking", "preprocessings")
    known = list(itertools.product(CHANNELS, SCALINGS))
    for channels, name in known:
        other = dataclasses.replace(network.spec, **pixels(name, channels))
        seen = disguised(photos, network.spec, other)
        margins[channels, name] = separation(_features(network, seen), labels).margin
        progress(len(margins), len(known))
    best = max(margins, key=lambda key: np.nan_to_num(margins[key], nan=-np.inf))
    own = separation(_features(network, photos), labels).margin
    if not margins[best] > BETTER * own:
        return f"No other channels or scaling separate {len(photos)} of these photos much better."
    return (
        f"{', '.join(best)} would separate {len(photos)} of these photos better (margin "
        f"{margins[best]:.2f}, as converted {own:.2f})."
    )


OF_FACES = ("people", "photos", "size", "resize")
ACTIONS = {"list": _list, "fetch": _fetch, "check": _check}
FLAGS = {
    "list": ("format",),
    "fetch": ("name",),
    "check": ("name", "faces", "alternatives", *OF_FACES),
}
