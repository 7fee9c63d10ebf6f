"""Masks and ranks of a world, made once and kept in a folder.

FOLDER/masks/<what>-<hash>.npy   masks of at most `PEOPLE` people
FOLDER/ranks/<what>-<hash>.npy   how often each person was found, similarities of pairs

The hash is over all that decides the content, so another setting, network or photo is another file,
and an interrupted study goes on where it stopped. A file that is damaged is made again.
"""

import dataclasses
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from opom_jax import laboratory
from opom_jax.baselines import specific
from opom_jax.baselines.settings import Settings as BaselineSettings
from opom_jax.evaluation.features import batches, extractor
from opom_jax.evaluation.identification import ranks
from opom_jax.files import unusable
from opom_jax.masks.apply import apply_mask
from opom_jax.masks.diverse import make_diverse
from opom_jax.masks.generate import Settings
from opom_jax.masks.memory import evenly, fitting, people_that_fit
from opom_jax.methods import METHODS
from opom_jax.networks.recognizer import Recognizer
from opom_jax.tables.kept import hashed, kept
from opom_jax.tables.worlds import World

PEOPLE = 20  # of one file
SMALLER = "lower --memory_gib or take smaller surrogates"
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Masks:
    """One set of masks, by what decides it.

    Attributes:
      surrogate: name of a surrogate of the world; "" for random signs as strong as a mask.
      settings: of masks or of a baseline; the name of an attack of `specific.METHODS` for a mask a
        probe; a seed for random signs.
      diverse: masks a person (Eq. 19); 0 for the method's own one.
      also: surrogates that an attack on single probes climbs together with the first.
    """

    surrogate: str
    settings: Settings | str | int
    diverse: int = 0
    also: tuple[str, ...] = ()


def make_room(folder: Path) -> None:
    """Makes the folders of a study if needed; InputError if they cannot be used."""
    try:
        for name in ("masks", "ranks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            if not os.access(folder / name, os.W_OK):
                raise PermissionError(errno.EACCES, "cannot be written", str(folder / name))
    except OSError as error:
        raise unusable(folder, error) from error


class Study:
    """A world and what is known of it.

    Args:
      world: people and networks.
      folder: is made if needed.
      progress: called with what is being made.
      memory_gib: for a batch on the device, as in `people_that_fit`.
    """

    def __init__(
        self,
        world: World,
        folder: Path,
        progress: Progress | None = None,
        memory_gib: float = 0.0,
    ):
        self.world, self.folder, self.memory_gib = world, folder, memory_gib
        self.progress = progress or (lambda what: None)
        make_room(folder)

    def of(self, world: World) -> "Study":
        """Another world in the same folder: what both need is made once."""
        return Study(world, self.folder, self.progress, self.memory_gib)

    def check(self, masks: Masks) -> None:
        """Raises InputError if the surrogate cannot be used so; nothing is computed."""
        settings = masks.settings
        if not isinstance(settings, int | str):
            network = self.world.surrogates[masks.surrogate]
            METHODS[settings.method].check(network, settings)

    def masked(self, masks: Masks) -> np.ndarray:
        """The probes u8[B,H,W,C] under a set of masks; u8[M,B,H,W,C] of diverse ones."""
        photos, made = self.world.photos, self.masks(masks)
        if isinstance(masks.settings, str):
            return apply_mask(photos.probes, made)
        if masks.diverse:
            return np.stack([laboratory.masked_probes(photos, own) for own in made.swapaxes(0, 1)])
        return laboratory.masked_probes(photos, made)

    def masks(self, masks: Masks) -> np.ndarray:
        """f32[P,H,W,C]; f32[P,M,H,W,C] of diverse masks; f32[B,H,W,C] of an image-specific one."""
        train, settings = self.world.photos.train, masks.settings
        if isinstance(settings, int):
            return laboratory.random_masks(len(train), train.shape[2], seed=settings)
        if isinstance(settings, str):
            return self._image_masks((masks.surrogate, *masks.also), settings)
        if METHODS[settings.method].serves == "everybody":
            mask = self._universal(masks, train)
            return np.broadcast_to(mask, (len(train), *mask.shape))
        parts = [
            self._part(masks, train[first : first + PEOPLE], first)
            for first in range(0, len(train), PEOPLE)
        ]
        return np.concatenate(parts)

    def _part(self, masks: Masks, train: np.ndarray, first: int) -> np.ndarray:
        """Masks of people from number `first` on."""
        network, settings = self.world.surrogates[masks.surrogate], masks.settings
        assert isinstance(settings, Settings)
        method = settings.method

        def make() -> np.ndarray:
            self.progress(f"masks of {method} by {masks.surrogate}, people {first + 1} and on")
            size = self._people(network, train, masks.diverse or 1)
            with fitting(size, SMALLER):
                if masks.diverse:
                    everybody = laboratory.everybody(train, first)
                    return make_diverse(network, settings, everybody, size, masks.diverse)
                return laboratory.make_masks(network, settings, train, size, first=first)

        key = _by(network, settings, train) | {"first": first, "diverse": masks.diverse}
        return kept(self.folder / "masks", f"{masks.surrogate}-{method}", key, make)

    def _people(self, network: Recognizer, train: np.ndarray, each: int = 1) -> int:
        """How many are computed at once, with so many masks each."""
        photos, size = train.shape[1:3]
        fit = min(PEOPLE, people_that_fit(network, photos, size, self.memory_gib))
        return evenly(len(train), max(1, fit // each))

    def _universal(self, masks: Masks, train: np.ndarray) -> np.ndarray:
        """One mask f32[H,W,C] for everybody."""
        network, settings = self.world.surrogates[masks.surrogate], masks.settings
        assert isinstance(settings, BaselineSettings)
        key = _by(network, settings, train)
        unfinished = self.folder / f"unfinished-{hashed(key)}"

        def make() -> np.ndarray:
            self.progress(f"mask of {settings.method} by {masks.surrogate}")
            everybody = laboratory.everybody(train)
            unfinished.mkdir(exist_ok=True)
            size = self._people(network, train)
            make = METHODS[settings.method].make
            with fitting(size, SMALLER):
                return make(network, settings, everybody, size, unfinished).masks[0]

        mask = kept(self.folder / "masks", f"{masks.surrogate}-{settings.method}", key, make)
        shutil.rmtree(unfinished, ignore_errors=True)
        return mask

    def _image_masks(self, surrogates: Sequence[str], attack: str) -> np.ndarray:
        networks = [self.world.surrogates[name] for name in surrogates]
        probes, names = self.world.photos.probes, "+".join(surrogates)

        def make() -> np.ndarray:
            self.progress(f"masks of {attack} by {names}")
            return specific.image_masks(networks, specific.METHODS[attack], probes)

        first, *more = networks
        key = _by(first, attack, probes) | {"also": [network.digest for network in more]}
        return kept(self.folder / "masks", f"{names}-{attack}", key, make)

    def found(self, masks: Masks | None, target: str) -> np.ndarray:
        """How often a target finds each person: i64[P,4], tests and identified at 1, 5, 10.

        Args:
          masks: on the probes; None for none.
          target: name of a target of the world.
        """

        def compute() -> np.ndarray:
            clean = self.clean(target)
            probes = clean.probes if masks is None else self._features(target, self.masked(masks))
            return self._ranks(probes, clean.probes, clean.distractors)

        return kept(self.folder / "ranks", target, self._key(masks, target), compute)

    def found_among_masked(self, masks: Masks, target: str) -> np.ndarray:
        """The same for diverse masks (Table 6): i64[M,P,4] against clean galleries, then
        i64[M,P,4] against galleries under the next mask (the same one where M is 1), together
        i64[2,M,P,4]. The photo that is looked for has another mask than the probe."""

        def compute() -> np.ndarray:
            clean = self.clean(target)
            under = [self._features(target, masked) for masked in self.masked(masks)]
            return np.stack(
                [
                    [self._ranks(own, clean.probes, clean.distractors) for own in under],
                    [
                        self._ranks(own, under[(m + 1) % len(under)], clean.distractors)
                        for m, own in enumerate(under)
                    ],
                ]
            )

        key = self._key(masks, target) | {"gallery": "masked"}
        return kept(self.folder / "ranks", target, key, compute)

    def pairs(self, masks: Masks | None, target: str) -> tuple[np.ndarray, np.ndarray]:
        """Cosine similarities of 1:1 verification (Fig. 4), probes masked: f64[S] of two photos of
        a person, the other one clean, and f64[O] of a probe and a distractor."""
        counts = self.world.photos.counts

        def compute() -> np.ndarray:
            clean = self.clean(target)
            probes = clean.probes if masks is None else self._features(target, self.masked(masks))
            own = (probes @ clean.probes.T)[_other_photo(counts)]
            return np.concatenate([own, (probes @ clean.distractors.T).ravel()])

        key = self._key(masks, target) | {"what": "pairs"}
        found = kept(self.folder / "ranks", target, key, compute).astype(np.float64)
        return tuple(np.split(found, [sum(n * (n - 1) for n in counts)]))  # pyright: ignore

    def clean(self, target: str) -> laboratory.Features:
        """Features of the probes and distractors without masks."""
        network, photos = self.world.targets[target], self.world.photos
        return laboratory.clean_features(network, photos, self.folder / "features")

    def is_white_box(self, surrogate: str, target: str) -> bool:
        """Whether the target is the surrogate itself."""
        known = self.world.surrogates.get(surrogate)
        return known is not None and known.digest == self.world.targets[target].digest

    def _features(self, target: str, pictures: np.ndarray) -> np.ndarray:
        self.progress(f"{target} looks at masked photos")
        return extractor(self.world.targets[target])(batches(pictures))

    def _ranks(self, probes, gallery, distractors) -> np.ndarray:
        return ranks(probes, gallery, self.world.photos.counts, distractors).per_person()

    def _key(self, masks: Masks | None, target: str) -> dict:
        own = None
        if masks is not None:
            name = masks.surrogate
            own = {
                "surrogate": name and _eyes(self.world.surrogates[name]),
                "settings": _plain(masks.settings),
                "diverse": masks.diverse,
                "also": [self.world.surrogates[name].digest for name in masks.also],
            }
        return {"masks": own, "target": _eyes(self.world.targets[target])} | self._pictures

    @cached_property
    def _pictures(self) -> dict:
        photos = self.world.photos
        named = {"train": photos.train, "probes": photos.probes, "others": photos.distractors}
        digests = {name: _digest(pictures) for name, pictures in named.items()}
        return digests | {"counts": list(photos.counts)}


def _plain(settings: Settings | str | int) -> dict | int:
    """As JSON."""
    if isinstance(settings, str):
        attack = vars(specific.METHODS[settings]).items()
        return {"attack": settings} | {k: v for k, v in attack if not callable(v)}
    return dataclasses.asdict(settings) if isinstance(settings, Settings) else settings


def _by(network: Recognizer, settings: Settings | str, pictures: np.ndarray) -> dict:
    return {
        "settings": _plain(settings),
        "surrogate": _eyes(network),
        "photos": _digest(pictures),
    }


def _eyes(network: Recognizer) -> dict:
    """What decides how a network sees: the same weights may be told to see in another way."""
    return {"weights": network.digest, "preprocessing": network.spec.card()}


def _digest(pictures: np.ndarray) -> str:
    sha = hashlib.sha256(f"{pictures.shape};".encode())
    sha.update(np.ascontiguousarray(pictures).data)
    return sha.hexdigest()


def _other_photo(counts: Sequence[int]) -> np.ndarray:
    """bool[B,B]: two different photos of one person."""
    person = np.repeat(np.arange(len(counts)), counts)
    return (person[:, None] == person) & ~np.eye(len(person), dtype=bool)
