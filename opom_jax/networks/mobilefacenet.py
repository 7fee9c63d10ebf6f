"""MobileFaceNet and its MobileNetV2-style relative: inverted residuals, global depthwise head."""

from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx

from opom_jax.networks.layers import Conv, DepthwiseConv, PReLU, batch_norm, relu6

# (expansion, channels, repeats, stride of the first) of each group of bottlenecks
STANDARD = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
NARROW_377K = ((2, 16, 5, 2), (4, 48, 1, 2), (2, 48, 6, 1), (4, 64, 1, 2), (2, 128, 2, 1))
NARROW_185K = ((2, 16, 5, 2), (4, 32, 1, 2), (2, 32, 5, 1), (4, 48, 1, 2), (2, 96, 2, 1))


def _activation(name: str, channels: int, rngs: nnx.Rngs):
    if name == "prelu":
        return PReLU(channels, rngs=rngs)
    return {"relu": jax.nn.relu, "relu6": relu6, "none": lambda x: x}[name]


class ConvBlock(nnx.Module):
    """Convolution (`size` an int) or depthwise convolution (`size` a pair), BN, activation."""

    def __init__(self, inputs, outputs, size, stride, padding, activation, *, rngs: nnx.Rngs):
        if isinstance(size, int):
            self.conv = Conv(inputs, outputs, size, stride=stride, padding=padding, rngs=rngs)
        else:
            self.conv = DepthwiseConv(outputs, size, stride=stride, padding=padding, rngs=rngs)
        self.bn = batch_norm(outputs, rngs=rngs)
        self.activation = _activation(activation, outputs, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(self.bn(self.conv(x)))


class Bottleneck(nnx.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear projection; residual where the shapes allow it."""

    def __init__(self, inputs, outputs, expansion, stride, activation, *, rngs: nnx.Rngs):
        hidden = expansion * inputs
        self.expand = ConvBlock(inputs, hidden, 1, 1, 0, activation, rngs=rngs)
        self.depthwise = ConvBlock(hidden, hidden, (3, 3), stride, 1, activation, rngs=rngs)
        self.project = ConvBlock(hidden, outputs, 1, 1, 0, "none", rngs=rngs)
        self.residual = stride == 1 and inputs == outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileFaceNet(nnx.Module):
    """Input [B,H,W,3] (already scaled) -> embedding [B,embedding] and named taps.

    Args:
      settings: groups of bottlenecks, see `STANDARD`.
      spatial: (height, width) of the last feature map, input size / 16.
      stem: channels after the first convolution.
      middle: channels of the last feature map.
      embedding: length of the embedding.
      activation: "prelu" (MobileFaceNet) or "relu6" (the MobileNetV2-style network, whose
        second stem block is a separable ReLU pair and whose last convolution has a bias).
      rngs: random streams for the initial weights.
    """

    spared = ("global_depthwise", "head")  # by dropout: they make the embedding

    def __init__(
        self,
        settings: Sequence[tuple[int, int, int, int]] = STANDARD,
        *,
        spatial: tuple[int, int] = (7, 7),
        stem: int = 64,
        middle: int = 512,
        embedding: int = 128,
        activation: str = "prelu",
        rngs: nnx.Rngs,
    ):
        block = partial(ConvBlock, rngs=rngs)
        v2 = activation == "relu6"
        self.stem = block(3, stem, 3, 2, 1, activation)
        self.stem_depthwise = block(stem, stem, (3, 3), 1, 1, "relu" if v2 else activation)
        self.stem_pointwise = block(stem, stem, 1, 1, 0, "relu") if v2 else None
        body, inputs = [], stem
        for expansion, outputs, repeats, first in settings:
            for k in range(repeats):
                stride = first if k == 0 else 1
                body.append(Bottleneck(inputs, outputs, expansion, stride, activation, rngs=rngs))
                inputs = outputs
        self.body = nnx.List(body)
        self.last = block(inputs, middle, 1, 1, 0, activation)
        self.global_depthwise = block(middle, middle, spatial, 1, 0, "none")
        self.head = Conv(middle, embedding, 1, bias=v2, rngs=rngs)
        self.embedding_bn = batch_norm(embedding, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.stem_depthwise(self.stem(x))
        x = x if self.stem_pointwise is None else self.stem_pointwise(x)
        taps = {"stem": x}
        for k, bottleneck in enumerate(self.body):
            x = taps[f"body/{k}"] = bottleneck(x)
        x = taps["last"] = self.last(x)
        x = self.head(self.global_depthwise(x))[:, 0, 0]
        return self.embedding_bn(x), taps
