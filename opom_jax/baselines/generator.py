"""The ResNet generator of GAP (Poursaeed, Katsman, Gao & Belongie, CVPR 2018).

c7s1-w, d2w, d4w, residual blocks, u2w, uw, c7s1-3, tanh, as in Johnson et al. (ECCV 2016). Its
batch norm sees nothing but copies of one pattern, in training and after it: an instance norm.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

SPREAD = 0.02  # of the first weights


class Block(nnx.Module):
    """Convolution [, stride 2 down or up], norm [, ReLU]."""

    def __init__(self, inputs, outputs, size, *, up=False, stride=1, relu=True, rngs: nnx.Rngs):
        build, padding = nnx.Conv, ((1, 1), (1, 1)) if stride == 2 else "REFLECT"
        if up:
            build, stride, padding = nnx.ConvTranspose, 2, ((1, 2), (1, 2))  # doubles the sides
        sides = size, size
        self.conv = build(
            inputs, outputs, sides, stride, padding=padding, use_bias=False, rngs=rngs
        )
        self.norm = nnx.InstanceNorm(outputs, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
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
      rngs: nothing of them stays, see `first_params`.
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
        self.last = nnx.Conv(w, 3, (7, 7), padding="REFLECT", rngs=rngs)

    def __call__(self, pattern: jax.Array) -> jax.Array:
        x = pattern
        for block in self.body:
            x = block(x)
        height, width = pattern.shape[1:3]  # sides that 4 does not divide were rounded up
        return jnp.tanh(self.last(x))[:, :height, :width]


def first_params(width: int, blocks: int, seed: int) -> tuple[nnx.GraphDef, nnx.State]:
    """A generator's graph and its first weights, as published: normal with spread 0.02, around 1
    for the scales of norms and around 0 for kernels; biases 0."""
    draw = np.random.default_rng(seed)
    graph, state = nnx.split(nnx.eval_shape(lambda: Generator(width, blocks, rngs=nnx.Rngs(0))))

    def first(kind: str, shape: tuple[int, ...]) -> jax.Array:
        spread = 0.0 if kind == "bias" else SPREAD
        return jnp.asarray((kind == "scale") + spread * draw.standard_normal(shape), jnp.float32)

    flat = nnx.to_flat_state(state)
    drawn = [(path, v.replace(first(str(path[-1]), v.shape))) for path, v in flat]
    return graph, nnx.from_flat_state(drawn)
