"""The ResNet generator of GAP (Poursaeed, Katsman, Gao & Belongie, CVPR 2018).

c7s1-w, d2w, d4w, residual blocks, u2w, uw, c7s1-3, tanh, as in Johnson et al. (ECCV 2016). Its
batch norm sees nothing but copies of one pattern, in training and after it: an instance norm.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

SPREAD = 0.02  # of the first weights


class Block(nnx.Module):
    """Convolution [, stride 2 down or up], norm [, ReLU]."""

    def __init__(self, inputs, outputs, size, *, up=False, stride=1, relu=True, rngs: nnx.Rngs):
        kernel = {"kernel_init": nnx.initializers.normal(SPREAD), "use_bias": False, "rngs": rngs}
        if up:
            padding = ((1, 2), (1, 2))  # torch's padding 1, output padding 1
            self.conv = nnx.ConvTranspose(
                inputs, outputs, (size, size), 2, padding=padding, **kernel
            )
        else:
            padding = ((1, 1), (1, 1)) if stride == 2 else "REFLECT"
            self.conv = nnx.Conv(inputs, outputs, (size, size), stride, padding=padding, **kernel)
        self.norm = nnx.InstanceNorm(
            outputs, epsilon=1e-5, use_fast_variance=False, scale_init=_near_one, rngs=rngs
        )
        self.relu = relu

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm(self.conv(x))
        return jax.nn.relu(x) if self.relu else x


class Residual(nnx.Module):
    """x + two 3x3 blocks, the second without ReLU."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.first = Block(channels, channels, 3, rngs=rngs)
        self.second = Block(channels, channels, 3, relu=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.second(self.first(x))


class Generator(nnx.Module):
    """Pattern f32[B,H,W,3] -> f32[B,H,W,3] in -1..1; H and W at least 8.

    Args:
      width: channels of the first convolution; 64 as published.
      blocks: residual blocks; 6 as published.
      rngs: random streams for the first weights.
    """

    def __init__(self, width: int = 64, blocks: int = 6, *, rngs: nnx.Rngs):
        w = width
        self.body = nnx.List(
            [
                Block(3, w, 7, rngs=rngs),
                Block(w, 2 * w, 3, stride=2, rngs=rngs),
                Block(2 * w, 4 * w, 3, stride=2, rngs=rngs),
                *(Residual(4 * w, rngs=rngs) for _ in range(blocks)),
                Block(4 * w, 2 * w, 3, up=True, rngs=rngs),
                Block(2 * w, w, 3, up=True, rngs=rngs),
            ]
        )
        init = nnx.initializers.normal(SPREAD)
        self.last = nnx.Conv(w, 3, (7, 7), padding="REFLECT", kernel_init=init, rngs=rngs)

    def __call__(self, pattern: jax.Array) -> jax.Array:
        x = pattern
        for block in self.body:
            x = block(x)
        height, width = pattern.shape[1:3]  # sides that 4 does not divide were rounded up
        return jnp.tanh(self.last(x))[:, :height, :width]


def _near_one(key: jax.Array, shape: Sequence[int], dtype=jnp.float32, **_) -> jax.Array:
    return 1 + SPREAD * jax.random.normal(key, shape, dtype)
