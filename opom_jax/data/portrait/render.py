"""One photo of one person from their parameters."""

import jax
import jax.numpy as jnp

from opom_jax.data.portrait.around import accessories, background, behind, hairline
from opom_jax.data.portrait.face import face
from opom_jax.data.portrait.head import SIZE, Scalars, rotation_of, shade, trace
from opom_jax.data.portrait.paint import edge, hair_color, mix, strands, tinted


def render(i: Scalars, p: Scalars, noise: jax.Array) -> jax.Array:
    """One photo of one person.

    Args:
      i: the person, f32[] each, as `synthetic.identity` gives them.
      p: the photo, f32[] each, as `synthetic.appearance` gives them.
      noise: f32[3,112,112], normal.

    Returns:
      f32[112,112,3] RGB in 0..255, eyes and mouth near `head.TEMPLATE`.
    """
    rotation = rotation_of(p["yaw"], p["pitch"])
    s = trace(i, p, rotation)
    hair = hair_color(i)
    light = jnp.stack([1 + 0.16 * p["warm"], jnp.ones(()), 1 - 0.16 * p["warm"]])
    image = behind(background(p), i, p, s, rotation, hair)
    diffuse, gloss = shade(i, p, s, rotation)
    head = face(i, p, s, hair)
    covered = edge(hairline(i, p, s), 0.06) * (1 - i["bald"] * edge(-0.2 - s.y, 0.3))
    head = mix(head, tinted(hair, strands(i, s.x, s.y)), covered)
    head = head * diffuse[None] + (gloss * (1 - 0.7 * covered))[None]
    image = mix(image, head, edge(s.inside, 0.025))
    image = accessories(image, i, p, s) * (light * p["exposure"])[:, None, None]
    image = jnp.sqrt(jnp.maximum(image, 1e-6))
    grey = image.mean(0, keepdims=True)
    image = grey + p["saturation"] * (image - grey)
    image = 0.45 + p["contrast"] * (image - 0.45)
    image = _blur(image, p["blur"]) + p["grain"] / 255 * noise
    return 255 * jnp.clip(image, 0, 1).transpose(1, 2, 0)


def _blur(image, sigma):
    """Gaussian of 7 taps along rows and columns; sigma f32[] in pixels, 0..1.6."""
    offsets = jnp.arange(-3, 4, dtype=jnp.float32)
    taps = jnp.exp(-(offsets**2) / (2 * jnp.maximum(sigma, 0.2) ** 2))
    taps = taps / taps.sum()
    padded = jnp.pad(image, ((0, 0), (3, 3), (0, 0)), mode="edge")
    image = sum(taps[k] * padded[:, k : k + SIZE] for k in range(7))
    padded = jnp.pad(image, ((0, 0), (0, 0), (3, 3)), mode="edge")
    return sum(taps[k] * padded[..., k : k + SIZE] for k in range(7))
