"""On whom and against whom: the people, surrogates and targets of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opom_jax import laboratory
from opom_jax.data import images, people
from opom_jax.errors import InputError
from opom_jax.evaluation.features import batches
from opom_jax.laboratory import Photos, Progress
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import Recognizer


class World(NamedTuple):
    """What a study is about.

    Attributes:
      name: "zoo", "real", "commons" or "celebrities".
      photos: of everybody.
      surrogates: networks that make masks, by the names of the tables.
      targets: networks that search; one of the same weights as a surrogate is its white box.
      people: names of those on the photos, if they have any.
    """

    name: str
    photos: Photos
    surrogates: Mapping[str, Recognizer]
    targets: Mapping[str, Recognizer]
    people: tuple[str, ...] = ()


def zoo(count: int, progress: Progress | None = None) -> World:
    """Synthetic people whom none of the package's networks has seen, and those networks."""
    return World(
        "zoo",
        laboratory.synthetic_photos(count, progress=progress),
        _loaded(laboratory.SURROGATES),
        _loaded(laboratory.TARGETS),
    )


def on_disk(
    name: str,
    persons: Sequence[people.Person],
    distractors: Sequence[Path],
    surrogates: Mapping[str, str],
    targets: Mapping[str, str],
    size: int = 112,
) -> World:
    """A world of photos and converted networks in folders.

    Args:
      name: of the world.
      persons: the same number of training photos each, two probes or more.
      distractors: one photo each of other people.
      surrogates, targets: name -> folder.
      size: side of the photos.

    Raises:
      InputError: a person with fewer photos, a photo or network that cannot be read.
    """
    wanted = max(len(person.train) for person in persons)
    for person in persons:
        if len(person.train) < wanted or len(person.probes) < 2:
            raise InputError(
                f"{person.name} has {len(person.train)} training and {len(person.probes)} test "
                f"photos, needs {wanted} and 2 or more; add photos or leave the person out."
            )
    networks = _loaded(surrogates), _loaded(targets)  # before photos, which takes longer
    train = _decoded([path for person in persons for path in person.train], size)
    probes = _decoded([path for person in persons for path in person.probes], size)
    photos = Photos(
        train.reshape(len(persons), wanted, *train.shape[1:]),
        probes,
        tuple(len(person.probes) for person in persons),
        _decoded(distractors, size),
    )
    return World(name, photos, *networks, tuple(person.name for person in persons))


def _decoded(paths: Sequence[Path], size: int) -> np.ndarray:
    return np.concatenate(list(images.read_batches(batches(paths), size)))


def _loaded(folders: Mapping[str, str]) -> dict[str, Recognizer]:
    return {name: recognizer.load(folder) for name, folder in folders.items()}
