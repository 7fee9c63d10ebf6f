"""MobileNet, one of the paper's targets: depthwise-separable convolutions with PReLU (MXNet).

Source: the published graph of m1, node by node. Every convolution is followed by BN (eps 1e-3,
gamma fixed at 1) and PReLU; the dropout before the embedding's dense layer is left out.
"""

from collections.abc import Sequence
from math import prod

import jax
from flax import nnx

from opom_jax.networks.layers import Conv, DepthwiseConv, Head, PReLU, batch_norm, halved

EPSILON = 1e-3

# (channels, stride) of each separable convolution
STANDARD = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *(((512, 1),) * 5),
    *((1024, 2), (1024, 1)),
)
SMALL = ((64, 2), (96, 1), (128, 2), (192, 1), (192, 1), (192, 2), (128, 2))


class Separable(nnx.Module):
    """3x3 depthwise, then 1x1: [B,H,W,inputs] -> [B,H/stride,W/stride,outputs]."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs):
        self.depthwise = DepthwiseConv(inputs, (3, 3), stride=stride, padding=1, rngs=rngs)
        self.depthwise_bn = batch_norm(inputs, epsilon=EPSILON, scale=False, rngs=rngs)
        self.depthwise_prelu = PReLU(inputs, rngs=rngs)
        self.pointwise = Conv(inputs, outputs, 1, rngs=rngs)
        self.pointwise_bn = batch_norm(outputs, epsilon=EPSILON, scale=False, rngs=rngs)
        self.pointwise_prelu = PReLU(outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.depthwise_prelu(self.depthwise_bn(self.depthwise(x)))
        return self.pointwise_prelu(self.pointwise_bn(self.pointwise(x)))


class MobileNet(nnx.Module):
    """Input [B,size,size,3] (already scaled) -> embedding [B,embedding] and named taps.

    Args:
      blocks: (channels, stride) of the separable convolutions, see `STANDARD`.
      size: side of the input.
      stem: channels after the first convolution.
      stem_stride: 2 halves the picture at the stem.
      embedding: length of the embedding.
      rngs: random streams for the initial weights.
    """

    def __init__(
        self,
        blocks: Sequence[tuple[int, int]] = STANDARD,
        *,
        size: int = 112,
        stem: int = 32,
        stem_stride: int = 1,
        embedding: int = 512,
        rngs: nnx.Rngs,
    ):
        self.stem = Conv(3, stem, 3, stride=stem_stride, padding=1, rngs=rngs)
        self.stem_bn = batch_norm(stem, epsilon=EPSILON, scale=False, rngs=rngs)
        self.stem_prelu = PReLU(stem, rngs=rngs)
        body, inputs = [], stem
        for outputs, stride in blocks:
            body.append(Separable(inputs, outputs, stride, rngs=rngs))
            inputs = outputs
        self.body = nnx.List(body)
        side = halved(size, stem_stride * prod(stride for _, stride in blocks))
        self.head = Head(side, inputs, embedding, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.stem_prelu(self.stem_bn(self.stem(x)))
        taps = {"stem": x}
        for k, block in enumerate(self.body):
            x = taps[f"body/{k}"] = block(x)
        return self.head(x), taps
