"""Inception-ResNet-v2 in the style of the paper's target i1 (MXNet).

Source: the published graph of i1, node by node. Every convolution has a bias and is followed by BN
(eps 1e-3, gamma fixed at 1) and ReLU, but for a block's last, whose ReLU comes after the scaled
sum. Reductions and pools take whole windows only, and the 1x7 and 7x1 convolutions are padded by
(1, 2) and (2, 1): the image is 2 higher and 2 narrower between them. The dropout before the
embedding's dense layer is left out. The paper's graph keeps the scales of the branches as
constants that its description leaves out; the defaults are the family's usual ones.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from opom_jax.networks.convolution import Sides
from opom_jax.networks.layers import Conv, Head, batch_norm, max_pool, mean_pool

EPSILON = 1e-3

# Sizes, strides, paddings of a branch's convolutions: (size, stride, padding) each.
POINT, SAME, DOWN = (1, 1, 0), (3, 1, 1), (3, 2, 0)
MIXED = ((POINT,), (POINT, (5, 1, 2)), (POINT, SAME, SAME), (POINT,))
BLOCK_35 = ((POINT,), (POINT, SAME), (POINT, SAME, SAME))
REDUCTION_A = ((DOWN,), (POINT, SAME, DOWN), ())
BLOCK_17 = ((POINT,), (POINT, ((1, 7), 1, (1, 2)), ((7, 1), 1, (2, 1))))
REDUCTION_B = ((POINT, DOWN), (POINT, DOWN), (POINT, SAME, DOWN), ())
BLOCK_8 = ((POINT,), (POINT, ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))))


class Widths(NamedTuple):
    """Channels of the convolutions, one tuple a branch.

    Attributes:
      stem: (channels, size, padding) of each convolution before the first pool.
      mixed, block_35, reduction_a, block_17, reduction_b, block_8: as the shapes above.
      last: channels of the last feature map.
    """

    stem: tuple[tuple[int, int, int], ...]
    mixed: tuple[tuple[int, ...], ...]
    block_35: tuple[tuple[int, ...], ...]
    reduction_a: tuple[tuple[int, ...], ...]
    block_17: tuple[tuple[int, ...], ...]
    reduction_b: tuple[tuple[int, ...], ...]
    block_8: tuple[tuple[int, ...], ...]
    last: int


STANDARD = Widths(
    stem=((32, 3, 0), (32, 3, 0), (64, 3, 1), (80, 1, 0), (192, 3, 0)),
    mixed=((96,), (48, 64), (64, 96, 96), (64,)),
    block_35=((32,), (32, 32), (32, 48, 64)),
    reduction_a=((384,), (256, 256, 384), ()),
    block_17=((192,), (129, 160, 192)),
    reduction_b=((256, 384), (256, 288), (256, 288, 320), ()),
    block_8=((192,), (192, 224, 256)),
    last=1536,
)
SMALL = Widths(
    stem=((16, 3, 0),),
    mixed=((16,), (16, 16), (16, 16, 16), (16,)),
    block_35=((16,), (16, 16), (16, 16, 16)),
    reduction_a=((16,), (16, 16, 16), ()),
    block_17=((32,), (16, 16, 32)),
    reduction_b=((16, 32), (16, 32), (16, 16, 32), ()),
    block_8=((32,), (32, 32, 32)),
    last=64,
)


class ConvBlock(nnx.Module):
    """Convolution with a bias, BN [, ReLU]."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: Sides,
        stride: int = 1,
        padding: Sides = 0,
        *,
        activation: bool = True,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            inputs, outputs, size, stride=stride, padding=padding, bias=True, rngs=rngs
        )
        self.bn = batch_norm(outputs, epsilon=EPSILON, scale=False, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.bn(self.conv(x))
        return jax.nn.relu(x) if self.activation else x


class Branches(nnx.Module):
    """Convolutions side by side, their channels joined; `pool` stands before the last branch."""

    def __init__(
        self,
        inputs: int,
        widths: Sequence[Sequence[int]],
        shapes: Sequence[Sequence[tuple[Sides, int, Sides]]],
        pool: Callable[[jax.Array], jax.Array] | None = None,
        *,
        block: Callable[..., nnx.Module] = ConvBlock,
        rngs: nnx.Rngs,
    ):
        branches = []
        for branch, kinds in zip(widths, shapes, strict=True):
            pairs = zip((inputs, *branch), branch, strict=False)
            branches.append(
                nnx.List(
                    block(*pair, *kind, rngs=rngs) for pair, kind in zip(pairs, kinds, strict=True)
                )
            )
        self.branches = nnx.List(branches)
        self.pool = pool
        self.outputs = sum(branch[-1] if branch else inputs for branch in widths)

    def __call__(self, x: jax.Array) -> jax.Array:
        maps = [x] * len(self.branches)
        maps[-1] = x if self.pool is None else self.pool(x)
        for k, branch in enumerate(self.branches):
            for block in branch:
                maps[k] = block(maps[k])
        return jnp.concatenate(maps, -1)


class Residual(nnx.Module):
    """x + scale * up(branches(x)) [, ReLU], [B,H,W,inputs] -> the same shape."""

    def __init__(
        self,
        inputs: int,
        widths: Sequence[Sequence[int]],
        shapes: Sequence[Sequence[tuple[Sides, int, Sides]]],
        scale: float,
        *,
        activation: bool = True,
        rngs: nnx.Rngs,
    ):
        self.branches = Branches(inputs, widths, shapes, rngs=rngs)
        self.up = ConvBlock(self.branches.outputs, inputs, 1, activation=False, rngs=rngs)
        self.scale, self.activation = scale, activation

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.scale * self.up(self.branches(x))
        return jax.nn.relu(x) if self.activation else x


def _side(size: int, stem: Sequence[tuple[int, int, int]], stem_stride: int) -> int:
    """Side of the last feature map."""
    for k, (_, kernel, padding) in enumerate(stem):
        size = (size + 2 * padding - kernel) // (stem_stride if k == 0 else 1) + 1
    for _ in range(3):  # the pool and both reductions
        size = (size - 3) // 2 + 1
    return size


class InceptionResNet(nnx.Module):
    """Input [B,size,size,3] (already scaled) -> embedding [B,embedding] and named taps.

    Args:
      widths: channels, see `Widths`.
      blocks: residual blocks on the large, the middle and the small feature map.
      scales: factors of their branches, and that of the very last block, which has no ReLU.
      size: side of the input.
      stem_stride: 2 halves the picture at the stem.
      embedding: length of the embedding.
      rngs: random streams for the initial weights.
    """

    def __init__(
        self,
        widths: Widths = STANDARD,
        *,
        blocks: tuple[int, int, int] = (10, 20, 10),
        scales: tuple[float, float, float, float] = (0.17, 0.10, 0.20, 1.0),
        size: int = 112,
        stem_stride: int = 1,
        embedding: int = 512,
        rngs: nnx.Rngs,
    ):
        w, (large, middle, small) = widths, blocks
        stem, inputs = [], 3
        for k, (outputs, kernel, padding) in enumerate(w.stem):
            stride = stem_stride if k == 0 else 1
            stem.append(ConvBlock(inputs, outputs, kernel, stride, padding, rngs=rngs))
            inputs = outputs
        self.stem = nnx.List(stem)

        def residuals(count, inputs, branches, shapes, scale):
            return [Residual(inputs, branches, shapes, scale, rngs=rngs) for _ in range(count)]

        self.mixed = Branches(inputs, w.mixed, MIXED, mean_pool, rngs=rngs)
        inputs = self.mixed.outputs
        self.block_35 = nnx.List(residuals(large, inputs, w.block_35, BLOCK_35, scales[0]))
        self.reduction_a = Branches(inputs, w.reduction_a, REDUCTION_A, max_pool, rngs=rngs)
        inputs = self.reduction_a.outputs
        self.block_17 = nnx.List(residuals(middle, inputs, w.block_17, BLOCK_17, scales[1]))
        self.reduction_b = Branches(inputs, w.reduction_b, REDUCTION_B, max_pool, rngs=rngs)
        inputs = self.reduction_b.outputs
        self.block_8 = nnx.List(residuals(small - 1, inputs, w.block_8, BLOCK_8, scales[2]))
        self.block_8.append(
            Residual(inputs, w.block_8, BLOCK_8, scales[3], activation=False, rngs=rngs)
        )
        self.last = ConvBlock(inputs, w.last, 1, rngs=rngs)
        self.head = Head(_side(size, w.stem, stem_stride), w.last, embedding, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        for block in self.stem:
            x = block(x)
        taps = {"stem": x}
        x = taps["mixed"] = self.mixed(max_pool(x))
        for k, block in enumerate(self.block_35):
            x = taps[f"block_35/{k}"] = block(x)
        x = taps["reduction_a"] = self.reduction_a(x)
        for k, block in enumerate(self.block_17):
            x = taps[f"block_17/{k}"] = block(x)
        x = taps["reduction_b"] = self.reduction_b(x)
        for k, block in enumerate(self.block_8):
            x = taps[f"block_8/{k}"] = block(x)
        x = taps["last"] = self.last(x)
        return self.head(x), taps
