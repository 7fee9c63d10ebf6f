"""Inception-ResNet-v1: facenet-pytorch's, a recogniser of PRO-Face, and Facenet's Keras port.

Source: Szegedy et al., AAAI 2017, as facenet-pytorch builds it; the Keras port that deepface uses
differs in that its BNs have no gammas. Convolutions without bias are followed by BN (eps 1e-3) and
ReLU; the 1x1 convolution that ends a residual branch has a bias, no BN, and its scaled sum is
followed by ReLU but for the very last. Inputs are 160 x 160. The embedding is the raw output of the
last BN; facenet-pytorch normalises it.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from opom_jax.networks.convolution import Sides
from opom_jax.networks.inception_resnet import BLOCK_35, DOWN, POINT, SAME, Branches
from opom_jax.networks.layers import Conv, FlatDense, batch_norm, max_pool

EPSILON = 1e-3
BLOCK_17 = ((POINT,), (POINT, ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))))
BLOCK_8 = ((POINT,), (POINT, ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))))
REDUCTION_A = ((DOWN,), (POINT, SAME, DOWN), ())
REDUCTION_B = ((POINT, DOWN), (POINT, DOWN), (POINT, SAME, DOWN), ())
# (channels, size, stride, padding); the pool comes after the third
STEM = ((32, 3, 2, 0), (32, 3, 1, 0), (64, 3, 1, 1), (80, 1, 1, 0), (192, 3, 1, 0), (256, 3, 2, 0))


class Block(nnx.Module):
    """Convolution, BN, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: Sides,
        stride: int = 1,
        padding: Sides = 0,
        *,
        bn_scale: bool = True,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(inputs, outputs, size, stride=stride, padding=padding, rngs=rngs)
        self.bn = batch_norm(outputs, epsilon=EPSILON, scale=bn_scale, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(self.bn(self.conv(x)))


class Residual(nnx.Module):
    """x + scale * up(branches(x)) [, ReLU], [B,H,W,inputs] -> the same shape."""

    def __init__(
        self,
        inputs: int,
        width: int,
        shapes: Sequence[Sequence[tuple[Sides, int, Sides]]],
        scale: float,
        *,
        activation: bool = True,
        block: Callable[..., Block] = Block,
        rngs: nnx.Rngs,
    ):
        widths = [(width,) * len(branch) for branch in shapes]
        self.branches = Branches(inputs, widths, shapes, block=block, rngs=rngs)
        self.up = Conv(self.branches.outputs, inputs, 1, bias=True, rngs=rngs)
        self.scale, self.activation = scale, activation

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.scale * self.up(self.branches(x))
        return jax.nn.relu(x) if self.activation else x


class InceptionResNetV1(nnx.Module):
    """Input [B,160,160,3] (already scaled) -> embedding [B,embedding] and named taps.

    Args:
      blocks: residual blocks on the large, the middle and the small feature map.
      embedding: length of the embedding.
      bn_scale: BNs have gammas.
      rngs: random streams for the initial weights.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int] = (5, 10, 5),
        *,
        embedding: int = 512,
        bn_scale: bool = True,
        rngs: nnx.Rngs,
    ):
        block = partial(Block, bn_scale=bn_scale)
        residual = partial(Residual, block=block, rngs=rngs)
        stem, inputs = [], 3
        for outputs, *shape in STEM:
            stem.append(block(inputs, outputs, *shape, rngs=rngs))
            inputs = outputs
        self.stem = nnx.List(stem)

        def repeated(count: int, inputs: int, width: int, shapes, scale: float) -> nnx.List:
            return nnx.List(residual(inputs, width, shapes, scale) for _ in range(count))

        def reduction(inputs: int, widths, shapes) -> Branches:
            return Branches(inputs, widths, shapes, max_pool, block=block, rngs=rngs)

        self.block_35 = repeated(blocks[0], inputs, 32, BLOCK_35, 0.17)
        self.reduction_a = reduction(inputs, ((384,), (192, 192, 256), ()), REDUCTION_A)
        inputs = self.reduction_a.outputs
        self.block_17 = repeated(blocks[1], inputs, 128, BLOCK_17, 0.10)
        widths = ((256, 384), (256, 256), (256, 256, 256), ())
        self.reduction_b = reduction(inputs, widths, REDUCTION_B)
        inputs = self.reduction_b.outputs
        self.block_8 = repeated(blocks[2], inputs, 192, BLOCK_8, 0.20)
        self.last = residual(inputs, 192, BLOCK_8, 1.0, activation=False)
        self.head = FlatDense(1, 1, inputs, embedding, bias=False, rngs=rngs)
        self.embedding_bn = batch_norm(embedding, epsilon=EPSILON, scale=bn_scale, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        taps = {}
        for k, block in enumerate(self.stem):
            x = block(x)
            x = max_pool(x) if k == 2 else x
        taps["stem"] = x
        for name in ("block_35", "reduction_a", "block_17", "reduction_b", "block_8"):
            part = getattr(self, name)
            for block in part if isinstance(part, nnx.List) else [part]:
                x = block(x)
            taps[name] = x
        x = taps["last"] = self.last(x)
        x = x.mean((1, 2), keepdims=True).astype(jnp.float32)
        return self.embedding_bn(self.head(x)), taps
