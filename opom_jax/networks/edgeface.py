"""EdgeFace: EdgeNeXt with a 512-number head, its dense layers whole or in low-rank form.

Sources: George et al., IEEE T-BIOM 2024 (EdgeFace); Maaz et al., ECCVW 2022 (EdgeNeXt), as timm
builds it. Four stages of residual blocks on 28 x 28 to 3 x 3 pixels (of 112 x 112): depthwise
convolutions with an MLP at every pixel, and at the end of the later stages a block that attends
among channels. A low-rank layer is two without an activation, its rank `gamma` of the smaller side.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from opom_jax.networks.layers import Conv, DepthwiseConv
from opom_jax.networks.transformer import Dense, Mlp, Patches, layer_norm

_DEEP = (3, 3, 9, 3)
_EXTRA_SMALL = {"widths": (32, 64, 100, 192), "depths": _DEEP, "heads": 4}
_SMALL = {"widths": (48, 96, 160, 304), "depths": _DEEP, "heads": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    "edgeface_xxs": {"widths": (24, 48, 88, 168), "depths": (2, 2, 6, 2), "heads": 4},
    "edgeface_xs": _EXTRA_SMALL,
    "edgeface_xs_gamma_06": _EXTRA_SMALL | {"gamma": 0.6},
    "edgeface_s_gamma_05": _SMALL | {"gamma": 0.5},
    "edgeface_base": {"widths": (80, 160, 288, 584), "depths": _DEEP, "heads": 8},
}
EPSILON = 1e-6  # of the layer norms
FIRST_GAIN = 1e-6  # of every residual branch
WAVES = 32  # numbers that encode a row, and as many a column
NORM_FLOOR = 1e-12  # as torch's normalize


class LowRank(nnx.Module):
    """What stands in for a dense layer, [...,I] -> [...,O]: first without bias, then with."""

    def __init__(self, inputs: int, outputs: int, *, gamma: float, rngs: nnx.Rngs):
        rank = max(2, int(gamma * min(inputs, outputs)))
        self.linear1 = Dense(inputs, rank, bias=False, rngs=rngs)
        self.linear2 = Dense(rank, outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear2(self.linear1(x))


class PixelMlp(nnx.Module):
    """gain * MLP(LN(x)), the branch with which both kinds of block end; [B,H,W,C] kept."""

    def __init__(self, channels: int, dense: Callable[..., nnx.Module], *, rngs: nnx.Rngs):
        gelu = partial(jax.nn.gelu, approximate=False)
        self.norm = layer_norm(channels, epsilon=EPSILON, rngs=rngs)
        self.mlp = Mlp(channels, 4 * channels, gelu, dense, rngs=rngs)
        self.gain = nnx.Param(jnp.full(channels, FIRST_GAIN))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.mlp(self.norm(x)) * self.gain[None, None, None]


class ConvBlock(nnx.Module):
    """x + gain * MLP(LN(depthwise(x))), [B,H,W,C] kept."""

    def __init__(self, channels: int, size: int, dense, *, rngs: nnx.Rngs):
        self.depthwise = DepthwiseConv(
            channels, (size, size), padding=size // 2, bias=True, rngs=rngs
        )
        self.branch = PixelMlp(channels, dense, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.branch(self.depthwise(x))


class CrossCovariance(nnx.Module):
    """Attention of channels to channels, by the cosine over all pixels (XCiT); [B,H,W,C] kept."""

    def __init__(self, channels: int, heads: int, dense, *, rngs: nnx.Rngs):
        self.qkv = dense(channels, 3 * channels, rngs=rngs)
        self.projection = dense(channels, channels, rngs=rngs)
        self.temperature = nnx.Param(jnp.ones((heads, 1, 1)))

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        heads = self.temperature.shape[0]
        qkv = self.qkv(x).reshape(batch, height * width, 3, heads, channels // heads)
        cosines = jnp.einsum("bnhc,bnhd->bhcd", _unit(qkv[:, :, 0]), _unit(qkv[:, :, 1]))
        weights = jax.nn.softmax(cosines * self.temperature[None])
        attended = jnp.einsum("bhcd,bnhd->bnhc", weights, qkv[:, :, 2])
        return self.projection(attended.reshape(x.shape))


def _unit(x: jax.Array) -> jax.Array:
    """x [B,N,h,C] at unit length over N; the gradient is finite also where it is zero."""
    square = jnp.sum(x**2, 1, keepdims=True)
    return x * lax.rsqrt(jnp.maximum(square, NORM_FLOOR**2))


class TransposeBlock(nnx.Module):
    """Split depthwise transpose attention (EdgeNeXt, section 3), [B,H,W,C] kept.

    All groups of channels but the last go through a 3x3 depthwise convolution, each after the
    result before it was added; then come positions, cross covariance, MLP.
    """

    def __init__(
        self, channels: int, groups: int, heads: int, positions: bool, dense, *, rngs: nnx.Rngs
    ):
        width = -(-channels // groups)
        self.convs = nnx.List(
            [
                DepthwiseConv(width, (3, 3), padding=1, bias=True, rngs=rngs)
                for _ in range(groups - 1)
            ]
        )
        self.positions = Conv(2 * WAVES, channels, 1, bias=True, rngs=rngs) if positions else None
        self.norm = layer_norm(channels, epsilon=EPSILON, rngs=rngs)
        self.attention = CrossCovariance(channels, heads, dense, rngs=rngs)
        self.attention_gain = nnx.Param(jnp.full(channels, FIRST_GAIN))
        self.branch = PixelMlp(channels, dense, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        width = self.convs[0].kernel.shape[2]
        *parts, last = jnp.split(x, list(range(width, x.shape[3], width)), 3)
        done = []
        for conv, part in zip(self.convs, parts, strict=True):
            done.append(conv(part + done[-1] if done else part))
        y = jnp.concatenate([*done, last], 3)
        if self.positions is not None:
            y = y + self.positions(jnp.asarray(waves(*y.shape[1:3])))
        y = y + self.attention(self.norm(y)) * self.attention_gain[None, None, None]
        return x + self.branch(y)


def waves(height: int, width: int) -> np.ndarray:
    """Fourier features of every pixel's row, then of its column, f32[1,height,width,64].

    Places run over (0, 2 pi] and are divided by powers of 10,000^(1/16): sine and cosine of each.
    """

    def features(count: int) -> np.ndarray:
        angles = 2 * np.pi * np.arange(1, count + 1) / (count + 1e-6)
        slowed = angles[:, None] / 10_000 ** (np.arange(0, WAVES, 2) / WAVES)[None]
        return np.stack([np.sin(slowed), np.cos(slowed)], 2).reshape(count, WAVES)

    shape = (1, height, width, WAVES)
    rows = np.broadcast_to(features(height)[None, :, None], shape)
    columns = np.broadcast_to(features(width)[None, None], shape)
    return np.concatenate([rows, columns], 3).astype(np.float32)


class Stage(nnx.Module):
    """Blocks on one size of image; every stage but the first halves it before."""

    def __init__(
        self,
        index: int,
        inputs: int,
        outputs: int,
        depth: int,
        heads: int,
        dense,
        *,
        rngs: nnx.Rngs,
    ):
        later = index > 0
        self.norm = layer_norm(inputs, epsilon=EPSILON, rngs=rngs) if later else None
        self.down = Patches(inputs, outputs, 2, rngs=rngs) if later else None
        size, groups, positions = 3 + 2 * index, max(2, index + 1), index == 1
        blocks: list[ConvBlock | TransposeBlock] = [
            ConvBlock(outputs, size, dense, rngs=rngs) for _ in range(depth - later)
        ]
        if later:
            blocks.append(TransposeBlock(outputs, groups, heads, positions, dense, rngs=rngs))
        self.blocks = nnx.List(blocks)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.norm is not None and self.down is not None:
            x = self.down(self.norm(x))
        for block in self.blocks:
            x = block(x)
        return x


class EdgeFace(nnx.Module):
    """Input [B,H,W,3] (already scaled) -> embedding [B,embedding] and named taps.

    Args:
      widths: channels of the four stages.
      depths: their blocks.
      heads: of the cross covariance; they divide the widths of the later stages.
      gamma: share of the rank that low-rank layers keep; None for whole ones.
      embedding: length of the embedding.
      rngs: random streams for the initial weights.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        *,
        heads: int,
        gamma: float | None = None,
        embedding: int = 512,
        rngs: nnx.Rngs,
    ):
        dense = Dense if gamma is None else partial(LowRank, gamma=gamma)
        self.stem = Patches(3, widths[0], 4, rngs=rngs)
        self.stem_norm = layer_norm(widths[0], epsilon=EPSILON, rngs=rngs)
        stages, inputs = [], widths[0]
        for index, (outputs, depth) in enumerate(zip(widths, depths, strict=True)):
            stages.append(Stage(index, inputs, outputs, depth, heads, dense, rngs=rngs))
            inputs = outputs
        self.stages = nnx.List(stages)
        self.norm = layer_norm(inputs, epsilon=EPSILON, rngs=rngs)
        self.head = dense(inputs, embedding, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.stem_norm(self.stem(x))
        taps = {"stem": x}
        for k, stage in enumerate(self.stages):
            x = taps[f"stages/{k}"] = stage(x)
        return self.head(self.norm(x.mean((1, 2)))), taps
