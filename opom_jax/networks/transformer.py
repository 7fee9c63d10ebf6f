"""Layers that the transformers share: dense layers, patches, the two-layer network of a block.

First weights are normal with deviation 0.02, cut at two deviations, and biases are zero, as in the
published code of both families. Layers compute in the type of their kernels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from opom_jax.draws import drawn

_kernel = nnx.initializers.truncated_normal(0.02)


class Dense(nnx.Module):
    """Fully connected over the last axis, [...,I] -> [...,O]: kernel [I,O] [, bias [O]]."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, rngs: nnx.Rngs):
        self.kernel = nnx.Param(drawn(_kernel, rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        y = x.astype(kernel.dtype) @ kernel
        return y if self.bias is None else y + self.bias[...].reshape((1,) * (y.ndim - 1) + (-1,))


class Patches(nnx.Module):
    """Convolution [B,H,W,I] -> [B,H//K,W//K,O] of patches that do not overlap: stride and size K.

    As a product of matrices its input gradient is one too; rows and columns over are left out.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs):
        shape = (size, size, inputs, outputs)
        self.kernel = nnx.Param(drawn(_kernel, rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        size, (batch, height, width, inputs) = kernel.shape[0], x.shape
        rows, columns = height // size, width // size
        x = x[:, : rows * size, : columns * size].astype(kernel.dtype)
        x = x.reshape(batch, rows, size, columns, size, inputs)
        return jnp.einsum("bhiwjc,ijcd->bhwd", x, kernel) + self.bias[None, None, None]


class Mlp(nnx.Module):
    """Two dense layers with `hidden` numbers and an activation between them, [...,C] kept.

    `dense` makes a layer from (inputs, outputs, rngs=): `Dense`, or what stands in for it.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        activation: Callable[[jax.Array], jax.Array],
        dense: Callable[..., nnx.Module] = Dense,
        *,
        rngs: nnx.Rngs,
    ):
        self.fc1 = dense(channels, hidden, rngs=rngs)
        self.fc2 = dense(hidden, channels, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(self.activation(self.fc1(x)))


def layer_norm(channels: int, *, epsilon: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation over the last axis; the variance is that of what the mean leaves."""
    return nnx.LayerNorm(channels, epsilon=epsilon, use_fast_variance=False, rngs=rngs)
