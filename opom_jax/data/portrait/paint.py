"""Brushes: soft shapes, layers, colours.

Colours are squared (a gamma of 2) while light is computed. A layer is a colour and a coverage 0..1
that falls smoothly over its edge.
"""

import jax
import jax.numpy as jnp

from opom_jax.data.portrait.head import Scalars

COMPLEXION, BACKGROUND = 11, 7  # sides of the grids of a person's skin and of what is behind
MARKS = 8  # moles and scars of a person, some of them too faint to see


def edge(distance, softness=0.05) -> jax.Array:
    """Coverage 0..1 of a region whose signed distance is positive inside."""
    return jnp.clip(0.5 + distance * (0.25 / softness), 0, 1)


def bell(square) -> jax.Array:
    """About exp(-square), without the exponential function."""
    return jnp.maximum(1 - square * (1 / 3), 0) ** 3


def blob(x, y, cx, cy, sx, sy) -> jax.Array:
    """A soft spot of radii sx, sy around (cx, cy), 1 in the middle."""
    return bell(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2)


def line(distance, width) -> jax.Array:
    """Coverage 0..1 of a soft line along distance 0."""
    return bell((distance / width) ** 2)


def wave(x) -> jax.Array:
    """About sin(x), by parabolas."""
    turn = x * (0.5 / jnp.pi)
    turn = turn - jnp.round(turn)
    return 8 * turn - 16 * turn * jnp.abs(turn)


def ellipse(x, y, cx, cy, rx, ry) -> jax.Array:
    """About the signed distance to an ellipse, positive inside."""
    return (1 - jnp.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + 1e-6)) * jnp.minimum(rx, ry)


def mix(image, color, alpha) -> jax.Array:
    """Paints color f32[3] or f32[3,H,W] over image f32[3,H,W] where alpha f32[H,W] is 1."""
    color = color if color.ndim == 3 else color[:, None, None]
    return image + alpha[None] * (color - image)


def tinted(color, level) -> jax.Array:
    """The colour f32[3] as bright as level f32[H,W]: f32[3,H,W]."""
    return color[:, None, None] * level[None]


def color(r, g, b) -> jax.Array:
    """Linear colour f32[3] from the usual 0..1 values."""
    return jnp.stack([jnp.asarray(v, jnp.float32) for v in (r, g, b)]) ** 2


def rgb(values: Scalars, name: str) -> jax.Array:
    """The colour f32[3] of the parameters name_r, name_g, name_b."""
    return color(*(values[f"{name}_{c}"] for c in "rgb"))


def field(grid, x, y) -> jax.Array:
    """Bilinear values of a grid f32[G,G] at x, y in 0..1: products of hat functions."""
    last = len(grid) - 1
    nodes = jnp.arange(last + 1, dtype=jnp.float32)[:, None, None]
    wx = jnp.maximum(1 - jnp.abs(jnp.clip(last * x, 0, last)[None] - nodes), 0)
    wy = jnp.maximum(1 - jnp.abs(jnp.clip(last * y, 0, last)[None] - nodes), 0)
    return (jnp.tensordot(grid, wx, 1) * wy).sum(0)


def skin_color(i: Scalars) -> jax.Array:
    """Skin f32[3]: from light to dark by tone, then redder and yellower."""
    tone = i["tone"]
    light, middle, dark = (
        jnp.array(c) for c in ((0.96, 0.80, 0.70), (0.80, 0.58, 0.44), (0.38, 0.25, 0.19))
    )
    base = jnp.where(
        tone < 0.5,
        light + (middle - light) * 2 * tone,
        middle + (dark - middle) * (2 * tone - 1),
    )
    return (
        base
        + i["red"] * jnp.array([0.03, -0.02, -0.02])
        + i["yellow"] * jnp.array([0.01, 0.01, -0.05])
    ) ** 2


def hair_color(i: Scalars) -> jax.Array:
    """Hair f32[3]: brown by lightness and warmth, then grey."""
    dark, warm = i["hair_light"], i["hair_warm"]
    brown = color(0.10 + 0.72 * dark, 0.08 + 0.56 * dark, 0.07 + 0.36 * dark)
    tint = jnp.array([1 + 0.5 * warm, 1.0, 1 - 0.4 * warm])
    grey = jnp.full(3, (0.25 + 0.55 * i["hair_light"]) ** 2)
    return brown * tint + i["grey"] * (grey - brown * tint)


def strands(i: Scalars, x, y) -> jax.Array:
    """Light and dark streaks of hair, f32[H,W] in 0.78..1.06."""
    flow = x * (1 + 0.15 * y) + i["curl"] * wave(3.1 * y + 2 * x)
    f = i["strand"]
    return 0.92 + 0.08 * wave(f * flow) + 0.06 * wave(1.7 * f * flow + 1.3 + 0.8 * y)
