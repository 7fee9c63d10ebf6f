"""DeepID, a recogniser of Chameleon's pool, as deepface's Keras port has it.

Source: Sun, Wang, Tang, CVPR 2014. Images are 55 high and 47 wide. The embedding sees the third and
the fourth convolution; dropouts are left out.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from opom_jax.networks.layers import Conv, FlatDense, max_pool


class DeepID(nnx.Module):
    """Input [B,55,47,3] (already scaled) -> embedding [B,embedding], none negative, and taps.

    Args:
      embedding: length of the embedding.
      rngs: random streams for the initial weights.
    """

    def __init__(self, *, embedding: int = 160, rngs: nnx.Rngs):
        shapes = ((3, 20, 4), (20, 40, 3), (40, 60, 3), (60, 80, 2))  # inputs, outputs, size
        self.convs = nnx.List(Conv(*shape, bias=True, rngs=rngs) for shape in shapes)
        self.fc11 = FlatDense(5, 4, 60, embedding, rngs=rngs)
        self.fc12 = FlatDense(4, 3, 80, embedding, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        taps = {}
        *pooled, last = self.convs
        for k, conv in enumerate(pooled, 1):
            x = taps[f"pool{k}"] = max_pool(jax.nn.relu(conv(x)), 2, 2)
        late = taps["conv4"] = jax.nn.relu(last(x))
        y = self.fc11(x).astype(jnp.float32) + self.fc12(late).astype(jnp.float32)
        return jax.nn.relu(y), taps
