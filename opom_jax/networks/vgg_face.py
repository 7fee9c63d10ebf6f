"""VGG-Face, a recogniser of Chameleon's pool, up to the descriptor that deepface takes.

Source: Parkhi, Vedaldi, Zisserman, BMVC 2015: VGG-16 with its fully connected layers as
convolutions. The descriptor is the second of them after its ReLU, at unit length; the classifier of
2622 people behind it is not part of the network.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from opom_jax.networks.layers import Conv, max_pool, unit_length

COUNTS = (2, 2, 3, 3, 3)  # 3x3 convolutions before each pool
WIDTHS = (64, 128, 256, 512, 512)


class VGGFace(nnx.Module):
    """Input [B,size,size,3] (already scaled) -> embedding [B,embedding] and named taps.

    Args:
      size: side of the input, a multiple of 32.
      widths: channels of the five stages.
      embedding: channels of both fully connected layers.
      rngs: random streams for the initial weights.
    """

    def __init__(
        self,
        *,
        size: int = 224,
        widths: tuple[int, ...] = WIDTHS,
        embedding: int = 4096,
        rngs: nnx.Rngs,
    ):
        convs, inputs = [], 3
        for count, outputs in zip(COUNTS, widths, strict=True):
            for _ in range(count):
                convs.append(Conv(inputs, outputs, 3, padding=1, bias=True, rngs=rngs))
                inputs = outputs
        self.convs = nnx.List(convs)
        self.fc6 = Conv(inputs, embedding, size // 2 ** len(COUNTS), bias=True, rngs=rngs)
        self.fc7 = Conv(embedding, embedding, 1, bias=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        taps, k = {}, 0
        for stage, count in enumerate(COUNTS, 1):
            for _ in range(count):
                x, k = jax.nn.relu(self.convs[k](x)), k + 1
            x = taps[f"pool{stage}"] = max_pool(x, 2, 2)
        x = taps["fc6"] = jax.nn.relu(self.fc6(x))
        x = jax.nn.relu(self.fc7(x))[:, 0, 0]
        return unit_length(x.astype(jnp.float32)), taps
