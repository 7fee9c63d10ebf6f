"""The face without light: complexion, marks, beard, mouth, nose, eyes, brows.

What comes twice is painted once on the face folded at its middle: `out` counts outwards.
"""

import jax
import jax.numpy as jnp

from opom_jax.data.portrait.head import Scalars, Surface, folded, mouth
from opom_jax.data.portrait.paint import (
    MARKS,
    blob,
    color,
    edge,
    ellipse,
    field,
    line,
    mix,
    skin_color,
    tinted,
    wave,
)


def face(i: Scalars, p: Scalars, s: Surface, hair) -> jax.Array:
    """The face without light: f32[3,H,W]."""
    skin = skin_color(i)
    image = _complexion(i, p, s, skin)
    image = _beard(image, i, p, s, hair)
    image = _lips(image, i, p, s, skin)
    image = _nose(image, i, s, skin)
    for k in range(MARKS):
        size = i[f"mark{k}_size"]
        mark = (
            1.6 * i[f"mark{k}_dark"] * blob(s.x, s.y, i[f"mark{k}_x"], i[f"mark{k}_y"], size, size)
        )
        image = mix(image, skin * jnp.array([0.35, 0.25, 0.22]), jnp.clip(mark, 0, 0.9))
    return _brows(_eyes(image, i, p, s, skin), i, p, s, hair)


def _complexion(i: Scalars, p: Scalars, s: Surface, skin):
    """Skin with its spots, blush, freckles, folds and lines."""
    x, y = (s.x + 2.4) / 4.8, (s.y + 3.0) / 6.4
    light, red = (i["uneven"] * field(i["complexion"][k], x, y) for k in range(2))
    image = skin[:, None, None] * jnp.exp(light[None] + tinted(jnp.array([0.5, 0.0, -1.0]), red))
    out, _ = folded(s)
    blush = 0.5 * i["blush"] * blob(out, s.y, 1.35, 1.15, 0.6, 0.5)
    image = mix(image, skin * jnp.array([1.12, 0.72, 0.70]), blush)
    dots = wave(23 * s.x + 5 * wave(7 * s.y)) * wave(21 * s.y + 4 * wave(9 * s.x))
    freckles = i["freckles"] * blob(s.x, s.y, 0.0, 0.85, 1.7, 0.6) * edge(dots - 0.45, 0.1)
    image = mix(image, skin * jnp.array([0.66, 0.5, 0.42]), freckles)
    fold = line(out - 0.78 - 0.3 * (s.y - i["nose_tip"]) - 0.1 * p["smile"], 0.07)
    fold = fold * blob(s.x, s.y, 0.0, i["nose_tip"] + 0.55, 3.0, 0.5)
    image = mix(image, skin * 0.45, (0.2 + 0.5 * i["age"]) * (0.5 + 0.5 * p["smile"]) * fold)
    lines = jnp.maximum(wave(11 * (s.y + 0.05 * wave(2 * s.x))), 0) ** 6
    lines = lines * blob(s.x, s.y, 0.0, -1.5, 1.2, 0.4)
    return mix(image, skin * 0.5, 0.6 * i["age"] ** 2 * lines)


def _beard(image, i: Scalars, p: Scalars, s: Surface, hair):
    wide, corner = mouth(i, p)
    grain = 0.75 + 0.25 * wave(31 * s.x + 3 * wave(17 * s.y)) * wave(29 * s.y)
    jaw = edge(s.y - (i["beard_line"] - 0.9 * (s.x / i["head_width"]) ** 2), 0.22)
    bare = blob(s.x, s.y, 0.0, corner - 0.02, 1.15 * wide, 0.24)
    image = mix(image, hair * 0.7, jnp.clip(i["beard"] * jaw * (1 - bare) * grain, 0, 0.96))
    lip = edge(ellipse(s.x + 0.1 * s.tx, s.y, 0.0, corner - 0.36, 1.05 * wide, 0.2), 0.05)
    return mix(image, hair * 0.6, jnp.clip(i["moustache"] * lip * grain, 0, 0.96))


def _lips(image, i: Scalars, p: Scalars, s: Surface, skin):
    wide, corner = mouth(i, p)
    lips = skin + i["lip_red"] * (color(0.70, 0.26, 0.28) - skin)
    lips = lips + p["lipstick"] * i["soft"] * (color(0.72, 0.12, 0.20) - lips)
    u, y = (s.x + 0.1 * s.tx) / wide, s.y + 0.1 * s.ty
    within = 1 - jnp.abs(u)
    arch = jnp.maximum(1 - u**2, 0.0)
    full = jnp.sqrt(arch)
    middle = corner + 0.22 * p["smile"] * arch  # where the lips meet
    gap = 0.55 * p["mouth_open"] * arch
    bow = 1 - 0.35 * i["bow"] * line(u, 0.16)
    top, bottom = middle - i["upper_lip"] * full * bow, middle + gap + i["lower_lip"] * full
    both = edge(jnp.minimum(y - top, bottom - y), 0.045) * edge(within, 0.04)
    image = mix(image, lips, both)
    inside = jnp.minimum(y - middle, middle + gap - y)
    image = mix(image, color(0.18, 0.05, 0.05), edge(inside, 0.02) * edge(gap - 0.04, 0.02))
    teeth = jnp.minimum(inside, middle + 0.55 * gap - y)
    image = mix(image, color(0.86, 0.83, 0.78), edge(teeth, 0.02) * edge(gap - 0.08, 0.03))
    return mix(image, lips * 0.2, 0.8 * line(y - middle, 0.04) * edge(within + 0.04, 0.04))


def _nose(image, i: Scalars, s: Surface, skin):
    tip, width, lift = i["nose_tip"], i["nose_width"], 0.7 * i["nose_height"]
    out, _ = folded(s, lift)
    y = s.y + lift * s.ty
    hole = blob(out, y, 0.42 * width, tip + 0.16, 0.12 + 0.1 * width, 0.075)
    image = mix(image, skin * 0.12, 0.85 * hole)
    wing = jnp.sqrt(((out / width - 0.62) / 0.42) ** 2 + ((y - tip - 0.04) / 0.26) ** 2 + 1e-6)
    image = mix(image, skin * 0.45, 0.5 * line(wing - 1, 0.22) * edge(out - 0.7 * width, 0.05))
    return mix(image, skin * 0.4, 0.5 * blob(out, y, 0.0, tip + 0.27, 0.9 * width, 0.12))


def _eyes(image, i: Scalars, p: Scalars, s: Surface, skin):
    width = i["eye_size"]
    lid = jnp.maximum(p["lids"] * i["eye_open"] * width, 0.03)
    out, side = folded(s)
    x = out - i["eye_spacing"]
    y = s.y - i["eye_y"] + i["slant"] * x
    u = x / width
    within = 1 - jnp.abs(u)
    arch = jnp.maximum(1 - u**2, 0.0)
    upper, lower = y + lid * arch * (1 + 0.15 * u), 0.75 * lid * arch - y
    image = mix(image, skin * 0.72, 0.6 * i["bags"] * blob(x, y, 0.0, 2.2 * lid, width, 0.12))
    crease = line(y + lid * (1.55 + 0.5 * i["crease"]) * jnp.sqrt(arch), 0.05)
    image = mix(image, skin * 0.45, 0.55 * i["crease"] * crease * edge(arch - 0.1, 0.1))
    seen = edge(jnp.minimum(upper, lower), 0.022) * edge(within - 0.02, 0.03)
    image = mix(image, color(0.90, 0.88, 0.86), seen)
    gaze = x - side * p["gaze_x"]
    r = jnp.sqrt(gaze**2 + (y - p["gaze_y"]) ** 2 + 1e-6)
    iris = jnp.stack([i["iris_r"], i["iris_g"], i["iris_b"]]) ** 2
    image = mix(image, iris, seen * edge(i["iris"] - r, 0.025))
    image = mix(image, iris * 0.25, seen * line(r - i["iris"], 0.035))
    image = mix(image, color(0.03, 0.03, 0.03), seen * edge(0.45 * i["iris"] - r, 0.025))
    lash = line(upper, 0.03 + 0.035 * i["lashes"]) * edge(within + 0.03, 0.03)
    image = mix(image, color(0.10, 0.08, 0.08), (0.55 + 0.45 * i["lashes"]) * lash)
    image = mix(image, skin * 0.35, 0.4 * line(lower, 0.035) * edge(within, 0.04))
    glint = blob(gaze, y, 0.07 * side, p["gaze_y"] - 0.08, 0.05, 0.05)
    return mix(image, jnp.ones(3), 0.8 * seen * glint)


def _brows(image, i: Scalars, p: Scalars, s: Surface, hair):
    out, _ = folded(s, 0.12)
    y = s.y + 0.12 * s.ty - (i["eye_y"] - i["brow_y"] - 0.12 * p["brows"])
    t = (out - i["brow_in"]) / i["brow_length"]
    middle = i["brow_tilt"] * (t - 0.5) - i["brow_arch"] * (1 - (1.6 * t - 1) ** 2)
    thick = i["brow_thick"] * (1.1 - 0.65 * jnp.clip(t, 0, 1))
    brow = edge(thick - jnp.abs(y - middle), 0.035) * edge(t, 0.06) * edge(1 - t, 0.08)
    return mix(image, hair * 0.6, i["brow_dark"] * brow)
