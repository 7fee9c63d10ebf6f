"""Facebook's DeepFace, a recogniser of Chameleon's pool, as deepface's Keras port has it.

Source: Taigman et al., CVPR 2014; the weights that deepface takes are of VGGFace2. The embedding is
the fully connected layer F7 after its ReLU; the classifier F8 is not part of the network.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from opom_jax.draws import drawn
from opom_jax.networks.layers import Conv, FlatDense, halved, max_pool

WIDTHS = (32, 16, 16, 16, 16)


class LocallyConnected(nnx.Module):
    """A convolution whose every output pixel has a kernel and a bias of its own.

    Kernel [H',W',size*size*inputs,outputs], a patch's values in the order row, column, channel;
    bias [H',W',outputs]; on images of side x side, whole windows only.
    """

    def __init__(
        self, side: int, inputs: int, outputs: int, size: int, *, stride: int = 1, rngs: nnx.Rngs
    ):
        self.size, self.stride = size, stride
        self.side = (side - size) // stride + 1
        values = size * size * inputs
        init = nnx.initializers.normal((2 / values) ** 0.5)
        shape = (self.side, self.side, values, outputs)
        self.kernel = nnx.Param(drawn(init, rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros((self.side, self.side, outputs)))

    def __call__(self, x: jax.Array) -> jax.Array:
        last = self.stride * (self.side - 1) + 1
        patches = jnp.concatenate(
            [
                x[:, i : i + last : self.stride, j : j + last : self.stride]
                for i in range(self.size)
                for j in range(self.size)
            ],
            -1,
        )
        kernel = self.kernel[...]
        y = jnp.einsum("bhwk,hwkc->bhwc", patches.astype(kernel.dtype), kernel)
        return y + self.bias[None]


class DeepFace(nnx.Module):
    """Input [B,size,size,3] (already scaled) -> embedding [B,embedding], none negative, and taps.

    Args:
      size: side of the input, at least 72.
      widths: channels of the two convolutions and the three locally connected layers.
      embedding: length of the embedding.
      rngs: random streams for the initial weights.
    """

    def __init__(
        self,
        *,
        size: int = 152,
        widths: tuple[int, ...] = WIDTHS,
        embedding: int = 4096,
        rngs: nnx.Rngs,
    ):
        c1, c3, l4, l5, l6 = widths
        self.c1 = Conv(3, c1, 11, bias=True, rngs=rngs)
        self.c3 = Conv(c1, c3, 9, bias=True, rngs=rngs)
        side = halved(size - 10, 2) - 8
        self.l4 = LocallyConnected(side, c3, l4, 9, rngs=rngs)
        self.l5 = LocallyConnected(self.l4.side, l4, l5, 7, stride=2, rngs=rngs)
        self.l6 = LocallyConnected(self.l5.side, l5, l6, 5, rngs=rngs)
        self.f7 = FlatDense(self.l6.side, self.l6.side, l6, embedding, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = jax.nn.relu(self.c1(x))
        extra = 1 + x.shape[1] % 2  # zeros that let the 3x3 windows cover the map, as Keras' "same"
        pads = (extra // 2, extra - extra // 2)
        x = max_pool(jnp.pad(x, ((0, 0), pads, pads, (0, 0))))  # nothing is below zero here
        taps = {"m2": x}
        for name in ("c3", "l4", "l5", "l6"):
            x = taps[name] = jax.nn.relu(getattr(self, name)(x))
        return jax.nn.relu(self.f7(x).astype(jnp.float32)), taps
