"""What is around a face: background, neck, clothes, ears, hair, glasses, things in front."""

import jax
import jax.numpy as jnp

from opom_jax.data.portrait.head import SIZE, Scalars, Surface, axes, folded, profile, smooth
from opom_jax.data.portrait.paint import (
    edge,
    ellipse,
    field,
    line,
    mix,
    rgb,
    skin_color,
    strands,
    tinted,
    wave,
)


def background(p: Scalars) -> jax.Array:
    """Two colours, mixed by a smooth field: f32[3,H,W]."""
    rows, columns = jnp.mgrid[:SIZE, :SIZE].astype(jnp.float32) / (SIZE - 1)
    mixed = jnp.clip(field(p["background"], columns, rows), 0, 1)
    first, second = (_pale(rgb(p, name), 0.65) for name in ("back", "behind"))
    return first[:, None, None] + tinted(second - first, mixed)


def behind(image, i: Scalars, p: Scalars, s: Surface, rotation, hair) -> jax.Array:
    """Hair around the head, neck, clothes and ears over the background."""
    skin = skin_color(i)
    turn = 0.6 * rotation[0, 2]
    across = s.sx - turn
    image = _mane(image, i, p, s, rotation, hair)
    shade = 0.45 + 0.25 * p["directed"] * (1 - jnp.abs(p["light_x"]))
    neck = jnp.minimum(i["neck"] - jnp.abs(across), s.sy - 1.5)
    image = mix(image, skin * shade, edge(neck, 0.06))
    cloth = s.sy - (3.3 + i["collar"] - 0.22 * jnp.abs(across))
    cloth = jnp.minimum(cloth, jnp.abs(across) - 0.9 + 0.8 * (s.sy - 3))
    image = mix(image, 0.7 * _pale(rgb(p, "cloth"), 0.5), edge(cloth, 0.05))
    return _ears(image, i, s, rotation, skin)


def _pale(colour, share):
    return colour + share * (colour.mean() - colour)


def _mane(image, i: Scalars, p: Scalars, s: Surface, rotation, hair):
    """The hair that stands out from the head, and falls if it is long."""
    a, b, c, middle = axes(i)
    volume = i["volume"] * (1 + 0.5 * p["ruffle"]) * (1 - 0.9 * i["bald"])
    wide = a * profile(i, 0.0) * rotation[0, 0] + 0.35 * jnp.abs(rotation[0, 2]) * c + volume
    x = s.sx + 0.2 * rotation[0, 2]
    shell = ellipse(x, s.sy, 0.0, middle, wide, b + volume)
    fall = jnp.minimum(wide + 0.3 * smooth(s.sy, middle, 2.5) - jnp.abs(x), s.sy - middle)
    shape = jnp.where(i["long"] > 0.5, jnp.maximum(shell, fall), jnp.minimum(shell, 0.9 - s.sy))
    here = edge(shape, 0.05) * (1 - i["bald"] * (1 - i["long"]))
    return mix(image, tinted(0.75 * hair, strands(i, s.sx, s.sy)), here)


def _ears(image, i: Scalars, s: Surface, rotation, skin):
    a, _, c, middle = axes(i)
    hidden = jnp.clip(2 * i["long"] - 0.2, 0, 1) * edge(i["volume"] - 0.15, 0.05)
    for side in (-1.0, 1.0):
        x, y, z = rotation @ jnp.stack([side * (0.96 * a + i["ear_out"]), 0.35 - middle, -0.1 * c])
        wide, high = 0.24 * i["ear"] + 0.5 * i["ear_out"], 0.62 * i["ear"]
        ear = ellipse(s.sx, s.sy, x * profile(i, 0.3), y + middle, wide, high)
        seen = edge(ear, 0.04) * edge(z + 1.1, 0.2) * (1 - hidden)
        image = mix(image, tinted(skin, 0.62 + 0.2 * edge(ear - 0.1, 0.05)), seen)
    return image


def hairline(i: Scalars, p: Scalars, s: Surface) -> jax.Array:
    """Signed distance into the hair on the head: f32[H,W]."""
    x = s.x - 0.5 * i["parting"]
    front = i["hairline"] + 0.35 * i["receding"] * (jnp.abs(x) - 0.9)
    front = front + i["peak"] * line(x, 0.35) - 0.12 * x**2 * (0.6 - i["round"])
    front = front + i["fringe"] * (0.9 + p["ruffle"]) * line(x - 0.4 * i["parting"], 1.3)
    front = front + 0.04 * wave(0.7 * i["strand"] * x)
    side = jnp.abs(s.x) - (i["temple_hair"] * i["head_width"] - 0.12 * smooth(s.y, -1.5, 0.5))
    bottom = jnp.where(i["long"] > 0.5, 9.0, i["sideburn"])
    return jnp.maximum(front - s.y, jnp.minimum(side, bottom - s.y))


def accessories(image, i: Scalars, p: Scalars, s: Surface) -> jax.Array:
    """Glasses, a cap, something in front of the face."""
    image = _glasses(image, i, p, s)
    cap = -1.75 - 0.12 * s.sx**2 + 0.25 * p["cap_low"] - s.sy
    colour = tinted(rgb(p, "cap"), 1 - 0.35 * line(cap, 0.18))
    image = mix(image, colour, p["cap"] * edge(cap, 0.04))
    cosine, sine = jnp.cos(p["over_angle"]), jnp.sin(p["over_angle"])
    x, y = s.sx - p["over_x"], s.sy - p["over_y"]
    x, y = cosine * x + sine * y, cosine * y - sine * x
    over = ellipse(x, y, 0.0, 0.0, p["over_wide"], p["over_high"])
    return mix(image, rgb(p, "over"), p["over"] * edge(over, 0.05))


def _glasses(image, i: Scalars, p: Scalars, s: Surface):
    frame, worn = rgb(p, "frame"), jnp.maximum(p["glasses"], p["shades"])
    out, _ = folded(s, 0.35)
    x, y = out - i["eye_spacing"], s.y + 0.35 * s.ty - i["eye_y"]
    u, v = (x / i["lens_width"]) ** 2, ((y - 0.08) / i["lens_height"]) ** 2
    oval, box = jnp.sqrt(u + v + 1e-6), jnp.sqrt(jnp.sqrt(u**2 + v**2 + 1e-6))
    lens = oval + i["lens_square"] * (box - oval)
    image = mix(image, jnp.full(3, 0.02), 0.93 * p["shades"] * edge(1 - lens, 0.04))
    image = mix(image, frame, worn * line(lens - 1, 0.06 + 0.06 * i["rim"]))
    bridge = edge(0.35 - out, 0.05) * line(y + 0.1, 0.08)
    temple = edge(x - i["lens_width"], 0.05) * line(y + 0.1, 0.07)
    return mix(image, frame, 0.9 * worn * (bridge + temple) * edge(s.inside, 0.02))
