"""Masks on videos (paper 4.3.3, Fig. 7 and 8): made from photos of a person, worn by frames.

Ten photos of a person give a prototype in the eyes of a target, others make the mask, and what
counts is how near the frames of a film still come to the prototype.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from opom_jax.errors import InputError
from opom_jax.evaluation.features import batches, extractor
from opom_jax.masks import generate as masks
from opom_jax.masks.apply import apply_mask
from opom_jax.masks.batches import Batch
from opom_jax.masks.memory import evenly, fitting, people_that_fit
from opom_jax.networks.recognizer import Recognizer
from opom_jax.tables.films import Film

COUNTS = (1, 2, 3, 5, 7, 10, 15)  # photos of which masks are made


def possible(films: Sequence[Film], counts: Sequence[int] = COUNTS) -> tuple[int, ...]:
    """The counts for which every film has the photos.

    Raises:
      InputError: there is none.
    """
    fewest = min(len(film.web) for film in films)
    found = tuple(count for count in counts if 1 <= count <= fewest)
    if not found:
        raise InputError(
            f"the film with the fewest photos for masks has {fewest}, and masks are wanted of "
            f"{', '.join(map(str, counts))}; add photos."
        )
    return found


def masks_by_count(
    film: Film,
    surrogate: Recognizer,
    settings: masks.Settings,
    counts: Sequence[int],
    number: int = 0,
    memory_gib: float = 0.0,
) -> np.ndarray:
    """Masks of the first photos of a person, by how many they are.

    The counts are computed together, like people of whom some have fewer photos, so that all films
    share one compilation.

    Args:
      film: of the person; `frames` and `prototype` are not seen.
      surrogate: makes the masks.
      settings: of the masks.
      counts: 1 to N each.
      number: of the person, seeds the random start (`Settings.start`).
      memory_gib: for a batch on the device, as in `people_that_fit`.

    Returns:
      f32[len(counts),H,W,C] in [-epsilon, epsilon].

    Raises:
      InputError: settings out of range, or a hull that is empty for one of the counts.
    """
    for count in counts:
        settings.check_photos(film.name, count)
    web = film.web[: max(counts)]
    together = np.broadcast_to(web, (len(counts), *web.shape))
    ids = np.full(len(counts), number, np.int32)
    valid = np.arange(len(web)) < np.array(counts)[:, None]
    batch = Batch(ids, together, valid.astype(np.float32))
    fit = people_that_fit(surrogate, len(web), web.shape[1], memory_gib)
    with fitting(size := evenly(len(counts), fit), "lower --memory_gib"):
        return masks.make(surrogate, settings, batch, size).masks


def similarities(
    films: Sequence[Film],
    surrogate: Recognizer,
    targets: Mapping[str, Recognizer],
    settings: masks.Settings,
    counts: Sequence[int] = COUNTS,
    memory_gib: float = 0.0,
) -> dict[str, np.ndarray]:
    """How near frames come to the prototype of their person, by the photos of the mask (Fig. 8).

    Args:
      films: one or more.
      surrogate: makes the masks.
      targets: networks that look at the films.
      settings: of the masks.
      counts: photos of which masks are made; those that are not `possible` are left out.
      memory_gib: as in `masks_by_count`.

    Returns:
      {target: f64[1 + len(possible(films, counts)),F]}, cosines in -1..1 for the frames of all
      films, one film after the other; the first row is without a mask.

    Raises:
      InputError: as in `possible` and `masks_by_count`.
    """
    counts = possible(films, counts)
    found = {name: [] for name in targets}
    for number, film in enumerate(films):
        made = masks_by_count(film, surrogate, settings, counts, number, memory_gib)
        shown = np.stack([film.frames, *[apply_mask(film.frames, mask) for mask in made]])
        for name, target in targets.items():
            found[name].append(cosines(target, film.prototype, shown))
    return {name: np.concatenate(parts, 1) for name, parts in found.items()}


def cosines(target: Recognizer, prototype: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Cosines f64[M,F] in -1..1 of frames u8[M,F,H,W,C] with the mean unit feature of the photos
    u8[K,H,W,C], in the eyes of a target."""
    pictures = np.concatenate([prototype, *shown])
    features = extractor(target)(batches(pictures)).astype(np.float64)
    mean = features[: len(prototype)].mean(0)
    found = features[len(prototype) :] @ (mean / np.linalg.norm(mean))
    return found.reshape(shown.shape[:2])
