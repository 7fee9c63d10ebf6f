"""A study in memory: people, masks of every method, black-box targets, protection rates.

What `demo` and tables share. Above masks, baselines and evaluation, below the command line.
Synthetic people and the networks of the package need nothing from outside; photos and networks from
elsewhere serve as well.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from opom_jax import methods
from opom_jax.baselines import settings as baselines
from opom_jax.baselines import specific
from opom_jax.data import synthetic
from opom_jax.evaluation.features import batches, cached, extractor
from opom_jax.evaluation.identification import Ranks, ranks
from opom_jax.evaluation.table import Table
from opom_jax.masks import generate as masks
from opom_jax.masks.apply import apply_mask
from opom_jax.masks.batches import Batch
from opom_jax.networks.recognizer import Recognizer

# As the paper's tables name them -> networks of the package.
SURROGATES = {name: f"zoo:surrogate_{name.lower()}" for name in ("Softmax", "CosFace", "ArcFace")}
TARGETS = {
    "ArcFace": "zoo:target_arcface",
    "CosFace": "zoo:target_cosface",
    "SFace": "zoo:target_sface",
    "MobileNet": "zoo:target_mobilenet",
    "SENet": "zoo:target_senet",
    "Inception-ResNet": "zoo:target_inception_resnet",
}
# Title -> name, by kind of settings.
METHODS = methods.titles(masks.Settings)
COMPARED = methods.titles(baselines.Settings)
IMAGE_SPECIFIC = methods.titles(specific.Attack)
# People of studies come before the distractors, those whom networks were trained on after them.
FIRST_DISTRACTOR, FIRST_KNOWN = 100_000, 1_000_000

NOISE = ("no network", "random noise")  # the row of masks that no network made

Progress = Callable[[int, int], None]
# (surrogate, method) -> masks f32[P,H,W,3]
Made = dict[tuple[str, str], np.ndarray]


class Photos(NamedTuple):
    """The pictures of a study, u8 RGB.

    Attributes:
      train: u8[P,N,H,W,C], from which the masks are made.
      probes: u8[B,H,W,C], others of the same people, those of a person consecutive.
      counts: probes of each person, at least 2, B in all.
      distractors: u8[G,H,W,C], one of each of other people.
    """

    train: np.ndarray
    probes: np.ndarray
    counts: tuple[int, ...]
    distractors: np.ndarray


def synthetic_photos(
    people: int,
    photos: int = 10,
    probes: int = 5,
    distractors: int = 2000,
    *,
    first: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Photos:
    """Synthetic people first .. first + people - 1 and their distractors.

    Args:
      people: P.
      photos: N.
      probes: M, at least 2.
      distractors: G.
      first: number of the first person; P more of them stay within `FIRST_DISTRACTOR`.
      seed: of the synthetic world; the networks of the package were trained in world 0, on people
        above a million.
      progress: called with the pictures drawn and their total.

    Raises:
      ValueError: people who would be their own distractors, or distractors that networks know.
    """
    if first + people > FIRST_DISTRACTOR or FIRST_DISTRACTOR + distractors > FIRST_KNOWN:
        raise ValueError("people of a study, distractors and people of training must be apart")
    before = people * (photos + probes)

    def draw(numbers: range, each: int, done: int) -> np.ndarray:
        def advance(further: int, _: int) -> None:
            if progress:
                progress(done + further, before + distractors)

        return synthetic.photos(numbers, each, seed, progress=advance)

    own = draw(range(first, first + people), photos + probes, 0)
    others = draw(range(FIRST_DISTRACTOR, FIRST_DISTRACTOR + distractors), 1, before)
    shown = own[:, photos:].reshape(-1, *own.shape[2:])
    return Photos(own[:, :photos], shown, (probes,) * people, others[:, 0])


def make_masks(
    network: Recognizer,
    settings: masks.Settings,
    train: np.ndarray,
    people_per_batch: int = 20,
    progress: Progress | None = None,
    first: int = 0,
) -> np.ndarray:
    """Masks of people by a method that makes one a person or one for everybody.

    Args:
      network: the surrogate.
      settings: of the masks, or of a baseline.
      train: u8[P,N,H,W,C].
      people_per_batch: on a device at once, 1 or more.
      progress: as in `methods.Maker`.
      first: number of the first person.

    Returns:
      f32[P,H,W,C] in [-epsilon, epsilon].

    Raises:
      InputError: settings out of range.
    """
    make, people = methods.METHODS[settings.method].make, everybody(train, first)
    return make(network, settings, people, people_per_batch, progress=progress).masks


def everybody(train: np.ndarray, first: int = 0) -> Batch:
    """People u8[P,N,H,W,C] in their order, numbered from `first`, every photo valid."""
    ids = np.arange(first, first + len(train), dtype=np.int32)
    return Batch(ids, train, np.ones(train.shape[:2], np.float32))


def random_masks(people: int, size: int, epsilon: float = 8.0, seed: int = 0) -> np.ndarray:
    """Masks f32[P,H,W,3] of random signs, epsilon strong: what no method should be weaker than."""
    draw = np.random.default_rng((seed, people))
    return epsilon * draw.choice(np.array([-1, 1], np.float32), (people, size, size, 3))


def every_mask(
    surrogates: Mapping[str, Recognizer],
    photos: Photos,
    seed: int = 0,
    progress: Progress | None = None,
) -> Made:
    """Random noise, then the masks of every surrogate and method at the paper's settings.

    Args:
      surrogates: by the names of the table.
      photos: of the study.
      seed: of the random start.
      progress: called with the sets of masks made and their total.
    """
    made: Made = {NOISE: random_masks(len(photos.train), photos.train.shape[2], seed=seed)}
    for surrogate, network in surrogates.items():
        for name, method in METHODS.items():
            settings = masks.Settings(method=method, seed=seed)
            made[surrogate, name] = make_masks(network, settings, photos.train)
            if progress:
                progress(len(made) - 1, len(surrogates) * len(METHODS))
    return made


class Features(NamedTuple):
    """Unit features of the unmasked pictures of a study by one network.

    Attributes:
      probes: f32[B,D].
      distractors: f32[G, D].
    """

    probes: np.ndarray
    distractors: np.ndarray


def clean_features(target: Recognizer, photos: Photos, cache: Path) -> Features:
    """Features of probes and distractors, kept in the folder `cache` for the next time."""
    extract = extractor(target)

    def features(pictures: np.ndarray) -> np.ndarray:
        key = {
            "network": target.digest,
            "preprocessing": target.spec.card(),
            "types": sorted({str(array.dtype) for array in jax.tree.leaves(target.params)}),
            "products": jax.config.jax_default_matmul_precision,  # pyright: ignore
            "pictures": hashlib.sha256(np.ascontiguousarray(pictures).data).hexdigest(),
        }
        shape = len(pictures), target.spec.embedding
        return cached(cache, key, shape, lambda out: extract(batches(pictures), out))

    return Features(features(photos.probes), features(photos.distractors))


def masked_probes(photos: Photos, made: np.ndarray) -> np.ndarray:
    """The probes with the masks f32[P,H,W,C] of their people, as stored: u8[B,H,W,C]."""
    each = np.split(photos.probes, np.cumsum(photos.counts)[:-1])
    return np.concatenate([apply_mask(*pair) for pair in zip(each, made, strict=True)])


def identify(
    target: Recognizer, photos: Photos, clean: Features, made: Sequence[np.ndarray]
) -> list[Ranks]:
    """Ranks of the probes without masks, then with each set of masks f32[P,H,W,C]."""
    extract, counts = extractor(target), photos.counts
    found = [ranks(clean.probes, clean.probes, counts, clean.distractors)]
    for own in made:
        features = extract(batches(masked_probes(photos, own)))
        found.append(ranks(features, clean.probes, counts, clean.distractors))
    return found


def protection(
    targets: Mapping[str, Recognizer],
    photos: Photos,
    made: Made,
    cache: Path,
    progress: Progress | None = None,
) -> tuple[Table, np.ndarray]:
    """Protection rates of every set of masks against every target.

    Args:
      targets: by the names of the table; none of them made masks.
      photos: of the study.
      made: sets of masks.
      cache: as in `clean_features`.
      progress: called with the targets done and their total.

    Returns:
      (the table, Top-1 protection of each person in percent, mean over targets: f64[rows,P]).
    """
    rates, none, people, tests = [], [], [], 0
    for target in targets.values():
        clean = clean_features(target, photos, cache)
        first, *found = identify(target, photos, clean, list(made.values()))
        none.append(first.protection())
        rates.append([of.protection() for of in found])
        counts = np.stack([of.per_person() for of in found])
        people.append(100 - 100 * counts[..., 1] / counts[..., 0])
        tests = len(first.rank)
        if progress:
            progress(len(none), len(targets))
    table = Table(tuple(made), tuple(targets), np.stack(rates, 1), np.stack(none), tests)
    return table, np.mean(people, 0)


def similarities(
    target: Recognizer, clean: Features, masked: np.ndarray, counts: Sequence[int]
) -> np.ndarray:
    """Cosine similarity of each person's first probe with the second, clean, before and after the
    first got its mask.

    Args:
      target: the network.
      clean: of the study.
      masked: u8[P,H,W,C], the first probe of each person with the mask.
      counts: probes of each person.

    Returns:
      f64[P,2] in -1..1.
    """
    starts = np.cumsum(np.asarray(counts)) - np.asarray(counts)
    first, second = (clean.probes[starts + k].astype(np.float64) for k in (0, 1))
    after = extractor(target)(batches(masked)).astype(np.float64)
    return np.stack([(first * second).sum(-1), (after * second).sum(-1)], 1)


def device() -> str:
    """The device in words, for tables."""
    found = jax.devices()[0]
    return f"{len(jax.devices())} x {found.device_kind}"
