"""Synthetic people: as many as wanted, as many photos of each, drawn by a seed.

A person is a point in the table `IDENTITY`, a photo a point in the table `PHOTO`; `portrait`
renders them, Pillow stores them as a JPEG and reads them back, as real crops were. Photo n of
person k is the same whatever else is asked for. A film moves smoothly between some such photos.
"""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from opom_jax.data.portrait.head import SIZE
from opom_jax.data.portrait.paint import BACKGROUND, COMPLEXION, MARKS
from opom_jax.data.portrait.render import render
from opom_jax.draws import drawn

CHUNK = 16  # faces rendered by one compiled call

# name -> (low, high) of a uniform draw. Lengths are halves of the distance between the eyes, y
# grows downwards from the eye line; shares are 0..1.
IDENTITY: dict[str, tuple[float, float]] = {
    "head_width": (1.9, 2.55),
    "head_depth": (2.3, 3.0),
    "chin": (2.85, 3.65),
    "crown": (-3.9, -3.3),
    "jaw": (0.76, 1.26),
    "temple": (0.95, 1.15),
    "cheek": (-0.05, 0.09),
    "chin_bump": (0.0, 0.4),
    "red": (-1.2, 1.2),
    "yellow": (-1.0, 1.0),
    "uneven": (0.17, 0.27),
    "blush": (0.0, 0.8),
    "age": (0.0, 1.0),
    "eye_y": (-0.15, 0.15),
    "eye_spacing": (0.84, 1.16),
    "eye_size": (0.31, 0.58),
    "eye_open": (0.28, 0.7),
    "eye_depth": (0.0, 0.45),
    "slant": (-0.24, 0.32),
    "iris": (0.13, 0.24),
    "lashes": (0.0, 1.0),
    "crease": (0.0, 1.0),
    "bags": (0.0, 1.0),
    "brow_y": (0.4, 0.96),
    "brow_in": (0.18, 0.64),
    "brow_length": (0.72, 1.5),
    "brow_thick": (0.05, 0.25),
    "brow_arch": (-0.04, 0.36),
    "brow_tilt": (-0.38, 0.38),
    "brow_dark": (0.4, 1.0),
    "brow_ridge": (0.0, 0.4),
    "cheekbone": (-0.05, 0.45),
    "nose_tip": (0.9, 1.52),
    "nose_width": (0.29, 0.78),
    "nose_height": (0.4, 1.05),
    "bridge": (0.12, 0.36),
    "mouth_y": (1.94, 2.54),
    "mouth_width": (0.5, 1.12),
    "upper_lip": (0.04, 0.27),
    "lower_lip": (0.08, 0.4),
    "lip_red": (0.1, 1.0),
    "bow": (0.0, 1.0),
    "hairline": (-2.55, -1.25),
    "receding": (-0.6, 0.6),
    "peak": (-0.1, 0.18),
    "round": (0.0, 1.0),
    "parting": (-1.0, 1.0),
    "temple_hair": (0.9, 1.0),
    "sideburn": (-0.2, 1.1),
    "volume": (0.05, 0.45),
    "strand": (9.0, 24.0),
    "curl": (0.0, 0.25),
    "neck": (1.35, 1.85),
    "collar": (-0.25, 0.3),
    "ear": (0.75, 1.1),
    "ear_out": (0.0, 0.25),
    "lens_width": (0.62, 0.84),
    "lens_height": (0.42, 0.66),
    "lens_square": (0.0, 1.0),
    "rim": (0.0, 1.0),
} | {
    f"mark{k}_{name}": span
    for k in range(MARKS)
    for name, span in {
        "x": (-1.7, 1.7),
        "y": (-1.6, 2.8),
        "size": (0.07, 0.14),
        "dark": (-0.5, 1.0),
    }.items()
}
PHOTO: dict[str, tuple[float, float]] = {
    "yaw": (-0.43, 0.43),
    "pitch": (-0.24, 0.24),
    "light_x": (-1.3, 1.3),
    "light_y": (-0.2, 1.0),
    "directed": (0.5, 0.93),
    "gloss": (0.0, 0.25),
    "warm": (-0.8, 1.0),
    "exposure": (0.9, 1.75),
    "contrast": (0.82, 1.22),
    "saturation": (0.6, 1.2),
    "lids": (0.75, 1.15),
    "brows": (-0.3, 1.0),
    "gaze_x": (-0.13, 0.13),
    "gaze_y": (-0.05, 0.06),
    "ruffle": (-0.3, 0.3),
    "lipstick": (-0.6, 0.9),
    "cap_low": (0.0, 1.0),
    "over_x": (-2.5, 2.5),
    "over_y": (1.0, 4.0),
    "over_wide": (0.3, 1.0),
    "over_high": (0.8, 2.0),
    "over_angle": (-1.5, 1.5),
    "blur": (0.6, 1.2),
    "grain": (3.0, 8.0),
} | {
    f"{name}_{c}": span
    for name, span in {
        "back": (0.0, 1.0),
        "behind": (0.0, 1.0),
        "cloth": (0.0, 1.0),
        "frame": (0.02, 0.4),
        "cap": (0.05, 1.0),
        "over": (0.1, 0.9),
    }.items()
    for c in "rgb"
}
_NORMAL = {  # name -> (deviation, limit) of a normal draw, clipped
    "roll": (0.033, 0.085),
    "zoom": (0.028, 0.065),
    "shift_x": (1.0, 2.2),
    "shift_y": (1.0, 2.2),
}
# What moves in a film: pose, expression, light. The rest stays as in its first photo.
MOVING = (
    *("yaw", "pitch", "roll", "zoom", "shift_x", "shift_y"),
    *("smile", "mouth_open", "lids", "brows", "gaze_x", "gaze_y"),
    *("light_x", "light_y", "directed", "exposure", "warm"),
)
PACE = 12  # frames from one photo that a film passes to the next, about half a second
FIRST_FILMED = 1_000_000  # number of the first photo that a film passes, and of its first frame


def identity(person: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The parameters of one person: `IDENTITY`, and those that hang together (sex, age, hair).

    Args:
      person: number from 0, without limit.
      seed: of the world of people, from 0.

    Returns:
      {name: f32[]}, and the grids of the skin, "complexion" f32[2,COMPLEXION,COMPLEXION].
    """
    draw = np.random.default_rng((seed, 0, person))
    i = _uniform(draw, IDENTITY)
    male, chance = draw.random() < 0.55, draw.random
    i["tone"] = draw.beta(1.1, 1.7)
    i["soft"] = 0.0 if male else 1.0
    i["long"] = float(chance() < (0.06 if male else 0.75))
    i["bald"] = float(male and chance() < 0.1 + 0.15 * i["age"])
    bearded = male and chance() < 0.3
    i["beard"] = draw.uniform(0.4, 1.0) if bearded else (draw.uniform(0, 0.25) if male else 0.0)
    i["moustache"] = draw.uniform(0.5, 1.0) if male and chance() < 0.35 else 0.6 * i["beard"]
    i["beard_line"] = draw.uniform(1.5, 2.6)
    i["fringe"] = draw.uniform(0.0, 1.2) if chance() < (0.3 if male else 0.5) else 0.0
    i["hair_light"] = draw.beta(1.0, 2.2) * (1.15 - i["tone"])
    i["hair_warm"] = draw.uniform(-0.2, 1.0) * (1 - 0.7 * i["tone"])
    i["grey"] = draw.uniform(0.3, 1.0) if chance() < 0.9 * i["age"] - 0.35 else 0.0
    i["freckles"] = draw.uniform(0.2, 0.6) if i["tone"] < 0.4 and chance() < 0.3 else 0.0
    blue = draw.random() if i["tone"] < 0.45 else 0.0
    for c, brown, light in zip("rgb", (0.36, 0.22, 0.12), (0.42, 0.58, 0.70), strict=True):
        i[f"iris_{c}"] = brown + blue * (light - brown)
    i["wears_glasses"] = float(chance() < 0.12)
    i["complexion"] = draw.normal(size=(2, COMPLEXION, COMPLEXION))
    return _arrays(i)


def appearance(person: int, photo: int, seed: int = 0, glasses: float = 0.0) -> dict:
    """The parameters of one photo of a person.

    Args:
      person, photo: numbers from 0, without limit.
      seed: of the world of people, from 0.
      glasses: "wears_glasses" of the person, 0 or 1.

    Returns:
      {name: f32[]}, and what is behind, "background" f32[BACKGROUND,BACKGROUND].
    """
    draw = np.random.default_rng((seed, 1, person, photo))
    p = _uniform(draw, PHOTO)
    for name, (deviation, limit) in _NORMAL.items():
        p[name] = float(np.clip(draw.normal(0, deviation), -limit, limit))
    chance = draw.random
    p["smile"] = draw.beta(0.8, 1.2)
    p["mouth_open"] = draw.uniform(0.2, 1.0) if chance() < 0.45 else 0.0
    p["shades"] = float(chance() < 0.015)
    p["glasses"] = float(chance() < (0.95 if glasses else 0.02))
    p["cap"] = float(chance() < 0.04)
    p["over"] = float(chance() < 0.04)
    p["lipstick"] = max(p["lipstick"], 0.0)
    p["background"] = draw.normal(0.5, 0.4, size=(BACKGROUND, BACKGROUND))
    return _arrays(p)


def movement(person: int, frames: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """The parameters of consecutive frames of a film of one person.

    The film passes photos FIRST_FILMED, FIRST_FILMED + 1, ... of the person, one every `PACE`
    frames, along cubics that rest at each; only `MOVING` moves.

    Args:
      person: number from 0.
      frames: F, 1 or more; the first ones do not depend on how many follow.
      seed: of the world of people.

    Returns:
      F dicts like those of `appearance`.
    """
    glasses = float(identity(person, seed)["wears_glasses"])
    passed = range(FIRST_FILMED, FIRST_FILMED + (frames - 1) // PACE + 2)
    looks = [appearance(person, photo, seed, glasses) for photo in passed]
    path = []
    for frame in range(frames):
        photo, t = frame // PACE, frame % PACE / PACE
        share = np.float32(t * t * (3 - 2 * t))
        a, b = looks[photo], looks[photo + 1]
        path.append(looks[0] | {name: a[name] + share * (b[name] - a[name]) for name in MOVING})
    return path


def film(
    people: Sequence[int],
    frames: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Films of some people, one shot each, see `movement`.

    Args:
      people: numbers from 0, without limit.
      frames: F, of each.
      seed: as in `photos`, of the same people.
      progress: called with the frames done and their total.

    Returns:
      u8[P,F,112,112,3] RGB, aligned, grain and storage of each frame its own.
    """
    paths = {person: movement(person, frames, seed) for person in set(people)}
    wanted = [(person, FIRST_FILMED + n) for person in people for n in range(frames)]

    def look(person: int, number: int) -> dict:
        return paths[person][number - FIRST_FILMED]

    return _taken(wanted, look, seed, progress).reshape(len(people), frames, SIZE, SIZE, 3)


def photos(
    people: Sequence[int],
    per_person: int,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Photos first .. first + per_person - 1 of some people.

    Args:
      people: numbers from 0, without limit.
      per_person: photos of each.
      seed: another seed is another world of people.
      first: number of the first photo.
      progress: called with the photos done and their total.

    Returns:
      u8[P,N,112,112,3] RGB, aligned; the same for the same (seed, person, photo).
    """
    wanted = [(person, first + n) for person in people for n in range(per_person)]
    glasses = {person: float(identity(person, seed)["wears_glasses"]) for person in set(people)}

    def look(person: int, photo: int) -> dict:
        return appearance(person, photo, seed, glasses[person])

    return _taken(wanted, look, seed, progress).reshape(len(people), per_person, SIZE, SIZE, 3)


def _taken(
    wanted: Sequence[tuple[int, int]],
    look: Callable[[int, int], dict],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Pictures u8[B,112,112,3] of (person, number), whose appearance is look(person, number)."""
    who = {person: identity(person, seed) for person in {person for person, _ in wanted}}
    found = np.empty((len(wanted), SIZE, SIZE, 3), np.uint8)

    def draw(start: int) -> int:
        part = wanted[start : start + CHUNK]
        found[start : start + CHUNK] = _drawn(part, who, look, seed)
        return len(part)

    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for more in pool.map(draw, range(0, len(wanted), CHUNK)):
            done += more
            if progress:
                progress(done, len(wanted))
    return found


def _drawn(
    part: Sequence[tuple[int, int]],
    who: dict[int, dict],
    look: Callable[[int, int], dict],
    seed: int,
) -> list[np.ndarray]:
    """At most CHUNK pictures, rendered together and stored one by one."""
    padded = [*part, *[part[-1]] * (CHUNK - len(part))]
    looks = [look(k, n) for k, n in padded]
    seeds = np.array([_noise_seed(seed, k, n) for k, n in padded], np.uint32)
    rendered = np.asarray(_render()(_stack([who[k] for k, _ in padded]), _stack(looks), seeds))
    return [
        _as_jpeg(picture, _quality(seed, k, n))
        for picture, (k, n) in zip(rendered, part, strict=False)
    ]


@cache
def _render():
    def one(i, p, seed):
        words = drawn(jax.random.bits, jax.random.key(seed), (3, SIZE, SIZE))
        four = jnp.stack([words >> shift & 255 for shift in (0, 8, 16, 24)]).astype("float32")
        noise = (four.sum(0) - 510) / 147.8  # the sum of four bytes is nearly normal
        return render(i, p, noise).round().astype("uint8")

    return jax.jit(jax.vmap(one))


def _as_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """The picture after it was stored as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(file))


def _noise_seed(seed: int, person: int, photo: int) -> int:
    return int(np.random.SeedSequence((seed, 2, person, photo)).generate_state(1)[0])


def _quality(seed: int, person: int, photo: int) -> int:
    return 50 + _noise_seed(seed, person, photo) % 49


def _uniform(draw, table) -> dict[str, Any]:
    values = draw.random(len(table))
    return {
        name: low + (high - low) * value
        for (name, (low, high)), value in zip(table.items(), values, strict=True)
    }


def _arrays(values: dict) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


def _stack(draws: Sequence[dict]) -> dict[str, np.ndarray]:
    return {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}
