"""Random arrays of JAX in the form that XLA compiles fast."""

import math
from collections.abc import Callable

import jax


def drawn(
    draw: Callable[..., jax.Array], key: jax.Array, shape: tuple[int, ...], **options
) -> jax.Array:
    """What `draw(key, shape, **options)` gives, to the bit; `draw` as jax.random.normal.

    Drawn along one axis: along four, XLA on the CPU compiles over four times as long.
    """
    return draw(key, (math.prod(shape),), **options).reshape(shape)
