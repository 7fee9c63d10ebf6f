"""IR and IR-SE residual networks: face.evoLVe's (the surrogates of OPOM) and insightface's.

A unit is BN, 3x3 convolution[, BN], PReLU, 3x3 convolution (stride), BN [, squeeze-excitation].
face.evoLVe's has no BN in the middle, and its shortcut is plain subsampling where the channels
match (also at stride 2) and 1x1 convolution + BN otherwise (quirks 2 and 4 of the published code).
The `inner_bn` form, of insightface's iresnet and of PRO-Face's recognisers, has that BN, and a
projection in the first unit of every stage. The embedding is the raw output of the last batch norm.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from opom_jax.networks.layers import Conv, FlatDense, PReLU, batch_norm, halved

UNITS = {50: (3, 4, 14, 3), 101: (3, 13, 30, 3), 152: (3, 8, 36, 3)}
IRESNET_UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    200: (6, 26, 60, 6),
}


class SqueezeExcitation(nnx.Module):
    """Channel gates from the global average: sigmoid(W2 relu(W1 mean))."""

    def __init__(self, channels: int, reduction: int = 16, *, rngs: nnx.Rngs):
        self.fc1 = Conv(channels, channels // reduction, 1, rngs=rngs)
        self.fc2 = Conv(channels // reduction, channels, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        mean = x.mean((1, 2), keepdims=True)
        return x * jax.nn.sigmoid(self.fc2(jax.nn.relu(self.fc1(mean))))


class Unit(nnx.Module):
    """One residual unit, [B,H,W,inputs] -> [B,H/stride,W/stride,outputs]."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, se: bool, inner_bn: bool, *, rngs: nnx.Rngs
    ):
        self.bn1 = batch_norm(inputs, rngs=rngs)
        self.conv1 = Conv(inputs, outputs, 3, padding=1, rngs=rngs)
        self.inner_bn = batch_norm(outputs, rngs=rngs) if inner_bn else None
        self.prelu = PReLU(outputs, rngs=rngs)
        self.conv2 = Conv(outputs, outputs, 3, stride=stride, padding=1, rngs=rngs)
        self.bn2 = batch_norm(outputs, rngs=rngs)
        self.se = SqueezeExcitation(outputs, rngs=rngs) if se else None
        self.stride = stride
        project = inputs != outputs or (inner_bn and stride > 1)
        self.shortcut = Conv(inputs, outputs, 1, stride=stride, rngs=rngs) if project else None
        self.shortcut_bn = batch_norm(outputs, rngs=rngs) if project else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(self.bn1(x))
        y = y if self.inner_bn is None else self.inner_bn(y)
        y = self.bn2(self.conv2(self.prelu(y)))
        y = y if self.se is None else self.se(y)
        if self.shortcut is None or self.shortcut_bn is None:
            return y + x[:, :: self.stride, :: self.stride]
        return y + self.shortcut_bn(self.shortcut(x))


class IR(nnx.Module):
    """Input [B,size,size,3] (already scaled) -> embedding [B,embedding] and named taps.

    Args:
      units: residual units in each stage (the first of a stage has stride 2).
      size: side of the input; the published networks take 112 or 224.
      se: adds squeeze-and-excitation to every unit.
      inner_bn: the form of insightface, see above.
      widths: channels of the stages; those of the first are the stem's too.
      stem_stride: 2 halves the picture at the stem, so that small networks are cheap.
      embedding: length of the embedding.
      rngs: random streams for the initial weights.
    """

    spared = ("shortcut", "se")  # by dropout, as published (goldens/QUIRKS 12)

    def __init__(
        self,
        units: Sequence[int],
        *,
        size: int = 112,
        se: bool = False,
        inner_bn: bool = False,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_stride: int = 1,
        embedding: int = 512,
        rngs: nnx.Rngs,
    ):
        self.stem = Conv(3, widths[0], 3, stride=stem_stride, padding=1, rngs=rngs)
        self.stem_bn = batch_norm(widths[0], rngs=rngs)
        self.stem_prelu = PReLU(widths[0], rngs=rngs)
        body, inputs = [], widths[0]
        for count, outputs in zip(units, widths, strict=True):
            for k in range(count):
                body.append(Unit(inputs, outputs, 2 if k == 0 else 1, se, inner_bn, rngs=rngs))
                inputs = outputs
        self.body = nnx.List(body)
        self.head_bn = batch_norm(inputs, rngs=rngs)
        side = halved(size, stem_stride * 2 ** len(widths))
        self.head = FlatDense(side, side, inputs, embedding, rngs=rngs)
        self.embedding_bn = batch_norm(embedding, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.stem_prelu(self.stem_bn(self.stem(x)))
        taps = {"stem": x}
        for k, unit in enumerate(self.body):
            x = taps[f"body/{k}"] = unit(x)
        x = self.head(self.head_bn(x).astype(jnp.float32))
        return self.embedding_bn(x), taps
