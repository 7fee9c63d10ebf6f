"""OpenFace's nn4.small2, a recogniser of Chameleon's pool, as deepface's Keras port has it.

Source: Amos, Ludwiczuk, Satyanarayanan, CMU-CS-16-118, 2016. A convolution has a bias and is
followed by BN (eps 1e-5) and ReLU. Pooled branches take whole windows only and are padded with
zeros to the size of their neighbours. The embedding has unit length.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from opom_jax.networks.layers import Conv, FlatDense, batch_norm, max_pool, unit_length


class Widths(NamedTuple):
    """Channels of an inception module's convolutions.

    Attributes:
      three: 1x1, then 3x3 (strided).
      five: 1x1, then 5x5 (strided); none if empty.
      pool: "max" (3x3, stride 2) or "l2" (3x3, stride 3).
      pooled: of the 1x1 after the pool; none if 0.
      point: of the 1x1; none if 0.
      stride: 2 halves the map.
    """

    three: tuple[int, int]
    five: tuple[int, ...]
    pool: str
    pooled: int
    point: int
    stride: int = 1


STEM = (64, 64, 192)
MODULES = {
    "3a": Widths((96, 128), (16, 32), "max", 32, 64),
    "3b": Widths((96, 128), (32, 64), "l2", 64, 64),
    "3c": Widths((128, 256), (32, 64), "max", 0, 0, stride=2),
    "4a": Widths((96, 192), (32, 64), "l2", 128, 256),
    "4e": Widths((160, 256), (64, 128), "max", 0, 0, stride=2),
    "5a": Widths((96, 384), (), "l2", 96, 256),
    "5b": Widths((96, 384), (), "max", 96, 256),
}


def response_norm(
    x: jax.Array, radius: int = 5, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
    """x / (1 + alpha * sum of x^2 over the channels within `radius`)^beta, as TensorFlow's lrn."""
    channel = jnp.arange(x.shape[-1])
    near = (abs(channel[:, None] - channel[None]) <= radius).astype(x.dtype)
    return x / (1 + alpha * (x**2 @ near)) ** beta


def l2_pool(x: jax.Array, size: int = 3) -> jax.Array:
    """Root of the sum of squares of every whole window, [B,H,W,C] -> [B,H//size,W//size,C].

    Its gradient is zero where a window is: ReLU leaves many such, and the root's is infinite.
    """
    b, h, w, c = x.shape
    h, w = h // size, w // size
    windows = x[:, : size * h, : size * w].reshape(b, h, size, w, size, c)
    total = jnp.sum(windows**2, (2, 4))
    return jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), 0)


def _padded(x: jax.Array, side: int) -> jax.Array:
    """Zeros around x up to side x side, an odd one below and to the right."""
    rows, columns = (side - n for n in x.shape[1:3])
    pads = [(n // 2, n - n // 2) for n in (rows, columns)]
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def _halved(x: jax.Array) -> jax.Array:
    """3x3 maxima of every other pixel, zeros beyond the border."""
    return max_pool(_padded(x, x.shape[1] + 2))


class Block(nnx.Module):
    """Convolution with a bias, padded to keep the size, BN, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, *, rngs: nnx.Rngs):
        self.conv = Conv(
            inputs, outputs, size, stride=stride, padding=size // 2, bias=True, rngs=rngs
        )
        self.bn = batch_norm(outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(self.bn(self.conv(x)))


class Inception(nnx.Module):
    """3x3, 5x5, pool and 1x1 side by side, [B,H,W,inputs] -> [B,H/stride,W/stride,outputs]."""

    def __init__(self, inputs: int, widths: Widths, *, rngs: nnx.Rngs):
        def pair(channels: Sequence[int], size: int) -> nnx.List:
            reduced, outputs = channels
            point = Block(inputs, reduced, 1, rngs=rngs)
            return nnx.List([point, Block(reduced, outputs, size, widths.stride, rngs=rngs)])

        self.three = pair(widths.three, 3)
        self.five = pair(widths.five, 5) if widths.five else None
        self.pooled = Block(inputs, widths.pooled, 1, rngs=rngs) if widths.pooled else None
        self.point = Block(inputs, widths.point, 1, rngs=rngs) if widths.point else None
        self.pool = widths.pool
        outputs = (widths.three[1], sum(widths.five[1:]), widths.pooled or inputs, widths.point)
        self.outputs = sum(outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        maps = [branch[1](branch[0](x)) for branch in (self.three, self.five) if branch is not None]
        pooled = max_pool(x) if self.pool == "max" else l2_pool(x)
        pooled = pooled if self.pooled is None else self.pooled(pooled)
        maps.append(_padded(pooled, maps[0].shape[1]))
        if self.point is not None:
            maps.append(self.point(x))
        return jnp.concatenate(maps, -1)


class OpenFace(nnx.Module):
    """Input [B,96,96,3] (already scaled) -> embedding [B,embedding] and named taps.

    Args:
      stem: channels of the three convolutions before the modules.
      modules: name -> widths, in order.
      embedding: length of the embedding.
      rngs: random streams for the initial weights.
    """

    def __init__(
        self,
        stem: tuple[int, int, int] = STEM,
        modules: dict[str, Widths] = MODULES,
        *,
        embedding: int = 128,
        rngs: nnx.Rngs,
    ):
        self.conv1 = Block(3, stem[0], 7, 2, rngs=rngs)
        self.conv2 = Block(stem[0], stem[1], 1, rngs=rngs)
        self.conv3 = Block(stem[1], stem[2], 3, rngs=rngs)
        inputs, inception = stem[2], []
        for widths in modules.values():
            inception.append(Inception(inputs, widths, rngs=rngs))
            inputs = inception[-1].outputs
        self.names, self.inception = tuple(modules), nnx.List(inception)
        self.head = FlatDense(1, 1, inputs, embedding, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = response_norm(_halved(self.conv1(x)))
        x = _halved(response_norm(self.conv3(self.conv2(x))))
        taps = {"stem": x}
        for name, module in zip(self.names, self.inception, strict=True):
            x = taps[name] = module(x)
        x = x.mean((1, 2), keepdims=True).astype(jnp.float32)
        return unit_length(self.head(x)), taps
