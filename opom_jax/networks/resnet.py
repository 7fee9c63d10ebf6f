"""ResNet-50 and SE-ResNet-50 of the paper's targets (MXNet's layout), and ArcFace's ResNet-34.

Source: the published graph of ser50, node by node. A unit is BN, 3x3 convolution, BN, PReLU, 3x3
convolution (stride), BN [, squeeze-excitation]; the shortcut of a stage's first unit is always a
1x1 convolution + BN of the unit's input, elsewhere the input itself. Other than in `ir.py` a BN
stands between the first convolution and the PReLU, and the gates have biases and a PReLU. All eps
are 2e-5; the dropout before the embedding's dense layer is left out. deepface's Keras port of
ArcFace is the plain ResNet with other depths, but that its last BN has a gamma.
"""

from collections.abc import Sequence

import jax
from flax import nnx

from opom_jax.networks.layers import MXNET_EPSILON, Conv, Head, PReLU, batch_norm, halved


class SqueezeExcitation(nnx.Module):
    """Channel gates from the global average: sigmoid(W2 prelu(W1 mean + b1) + b2)."""

    def __init__(self, channels: int, reduction: int, *, rngs: nnx.Rngs):
        hidden = channels // reduction
        self.fc1 = Conv(channels, hidden, 1, bias=True, rngs=rngs)
        self.prelu = PReLU(hidden, rngs=rngs)
        self.fc2 = Conv(hidden, channels, 1, bias=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        mean = x.mean((1, 2), keepdims=True)
        return x * jax.nn.sigmoid(self.fc2(self.prelu(self.fc1(mean))))


class Unit(nnx.Module):
    """One residual unit, [B,H,W,inputs] -> [B,H/stride,W/stride,outputs]; `first` of its stage."""

    def __init__(
        self, inputs: int, outputs: int, first: bool, reduction: int | None, *, rngs: nnx.Rngs
    ):
        stride = 2 if first else 1
        self.bn1 = batch_norm(inputs, epsilon=MXNET_EPSILON, rngs=rngs)
        self.conv1 = Conv(inputs, outputs, 3, padding=1, rngs=rngs)
        self.bn2 = batch_norm(outputs, epsilon=MXNET_EPSILON, rngs=rngs)
        self.prelu = PReLU(outputs, rngs=rngs)
        self.conv2 = Conv(outputs, outputs, 3, stride=stride, padding=1, rngs=rngs)
        self.bn3 = batch_norm(outputs, epsilon=MXNET_EPSILON, rngs=rngs)
        self.se = None if reduction is None else SqueezeExcitation(outputs, reduction, rngs=rngs)
        self.shortcut = Conv(inputs, outputs, 1, stride=stride, rngs=rngs) if first else None
        norm = batch_norm(outputs, epsilon=MXNET_EPSILON, rngs=rngs) if first else None
        self.shortcut_bn = norm

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(self.bn1(x))
        y = self.bn3(self.conv2(self.prelu(self.bn2(y))))
        y = y if self.se is None else self.se(y)
        if self.shortcut is None or self.shortcut_bn is None:
            return y + x
        return y + self.shortcut_bn(self.shortcut(x))


class ResNet(nnx.Module):
    """Input [B,size,size,3] (already scaled) -> embedding [B,embedding] and named taps.

    Args:
      units: residual units in each stage (the first of a stage has stride 2).
      size: side of the input.
      se: adds squeeze-and-excitation to every unit.
      reduction: channels of a unit for each hidden one of its squeeze-and-excitation.
      widths: channels of the stages; those of the first are the stem's too.
      stem_stride: 2 halves the picture at the stem.
      embedding: length of the embedding.
      embedding_scale: the last BN has a gamma.
      rngs: random streams for the initial weights.
    """

    spared = ("shortcut", "se")  # by dropout, as in ir.py

    def __init__(
        self,
        units: Sequence[int] = (3, 4, 14, 3),
        *,
        size: int = 112,
        se: bool = False,
        reduction: int = 16,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_stride: int = 1,
        embedding: int = 512,
        embedding_scale: bool = False,
        rngs: nnx.Rngs,
    ):
        self.stem = Conv(3, widths[0], 3, stride=stem_stride, padding=1, rngs=rngs)
        self.stem_bn = batch_norm(widths[0], epsilon=MXNET_EPSILON, rngs=rngs)
        self.stem_prelu = PReLU(widths[0], rngs=rngs)
        body, inputs = [], widths[0]
        for count, outputs in zip(units, widths, strict=True):
            for k in range(count):
                body.append(Unit(inputs, outputs, k == 0, reduction if se else None, rngs=rngs))
                inputs = outputs
        self.body = nnx.List(body)
        side = halved(size, stem_stride * 2 ** len(widths))
        self.head = Head(side, inputs, embedding, scale=embedding_scale, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.stem_prelu(self.stem_bn(self.stem(x)))
        taps = {"stem": x}
        for k, unit in enumerate(self.body):
            x = taps[f"body/{k}"] = unit(x)
        return self.head(x), taps
