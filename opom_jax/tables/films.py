"""Of whom there are films: synthetic people, folders of frames, or photos that serve as frames."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from opom_jax import laboratory
from opom_jax.data import images, people, synthetic
from opom_jax.errors import InputError
from opom_jax.tables.worlds import World

SHOT = 10  # people of the zoo of whom there are films


class Film(NamedTuple):
    """One person on photos and in a film, u8 RGB; no picture serves twice.

    Attributes:
      name: of the person.
      prototype: u8[K,H,W,C], the photos by which a target knows the person.
      web: u8[N,H,W,C], the photos of which masks are made, the first ones first.
      frames: u8[F,H,W,C].
    """

    name: str
    prototype: np.ndarray
    web: np.ndarray
    frames: np.ndarray


def synthetic_films(
    count: int,
    frames: int = 60,
    prototype: int = 10,
    web: int = 15,
    *,
    first: int = 0,
    seed: int = 0,
) -> list[Film]:
    """Films of synthetic people first .. first + count - 1.

    The photos are those of `laboratory.synthetic_photos`, each with its own pose, light and
    surroundings. A film is one shot in which pose, expression and light move smoothly
    (`synthetic.film`).

    Args:
      count: films, a person each.
      frames: F.
      prototype: K, 2 or more.
      web: N.
      first, seed: as in `laboratory.synthetic_photos`.

    Raises:
      ValueError: as there.
    """
    photos = laboratory.synthetic_photos(count, web, prototype, 0, first=first, seed=seed)
    known = np.split(photos.probes, count)
    shots = synthetic.film(range(first, first + count), frames, seed)
    names = [f"person {first + k}" for k in range(count)]
    return [Film(*own) for own in zip(names, known, photos.train, shots, strict=True)]


def from_folders(
    prototype: people.StrPath, web: people.StrPath, frames: people.StrPath, size: int = 112
) -> Film:
    """The film of one person in three folders of aligned pictures, each taken in order of name.

    Args:
      prototype, web, frames: folders, or lists of files as in `people.flat_images`; the folder of
        the frames names the film.
      size: height and width of the pictures.

    Raises:
      InputError: a folder without images, an image that cannot be read or has another size.
    """
    found = [people.flat_images(folder) for folder in (prototype, web, frames)]
    return Film(Path(frames).resolve().name, *images.read_batches(found, size))


def from_photos(name: str, photos: np.ndarray, web: int = 7, prototype: int = 5) -> Film:
    """The film of a person of whom there are photos only; the frames are photos too.

    Args:
      name: of the person.
      photos: u8[N,H,W,C]. The first `prototype` are the prototype, the next `web` make masks, the
        rest are frames. 15 to 20 photos are too few for the paper's 10 and 15: by default they
        give 5 and 7, 3 to 8 frames, and no masks of more than 7 photos.
      web, prototype: 1 or more each.

    Raises:
      InputError: no photo is left for a frame.
    """
    if len(photos) <= prototype + web:
        raise InputError(
            f"{name} has {len(photos)} photos, needs more than {prototype + web} "
            f"({prototype} for the prototype, {web} for masks); add photos or leave the person out."
        )
    return Film(name, *np.split(photos, [prototype, prototype + web]))


def of_world(world: World) -> list[Film]:
    """A film of each person of a world: synthetic ones of the first people of the zoo (`SHOT`), of
    others their photos (`from_photos`).

    Raises:
      InputError: as `from_photos`.
    """
    photos = world.photos
    if world.name == "zoo":
        return synthetic_films(min(SHOT, len(photos.train)))
    probes = np.split(photos.probes, np.cumsum(photos.counts)[:-1])
    names = world.people or tuple(f"person {k}" for k in range(len(probes)))
    everybody = zip(names, photos.train, probes, strict=True)
    return [from_photos(name, np.concatenate(own)) for name, *own in everybody]


def in_folder(folder: people.StrPath, size: int = 112) -> list[Film]:
    """Films FOLDER/NAME, each with the folders prototype, web and frames.

    Raises:
      InputError: no films, or as `from_folders`.
    """
    names = sorted(path for path in Path(folder).glob("*") if path.is_dir())
    if not names:
        raise InputError(
            f"{str(folder)!r} has no films; give each a folder with prototype/, web/ and frames/."
        )
    films = []
    for path in names:
        prototype, web, frames = (path / part for part in ("prototype", "web", "frames"))
        for part in (prototype, web, frames):
            if not part.is_dir():
                raise InputError(f"{str(part)!r} is no folder; put photos of the person there.")
        film = from_folders(prototype, web, frames, size)
        films.append(film._replace(name=path.name))
    return films
