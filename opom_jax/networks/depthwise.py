"""Depthwise convolutions as shifted multiply-adds, which XLA fuses into one loop.

A library takes a group a channel, which on a CPU is several times slower, above all backwards.
Arrays are NHWC.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@partial(jax.jit, static_argnames=("stride", "padding"))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """Depthwise 2-D cross-correlation whose gradients are the same.

    Compiled into what calls it; jitted so that JAX traces it once for all layers of a shape.

    Args:
      x: [B,H,W,C].
      kernel: [K,L,C], one filter a channel.
      stride: step of both axes.
      padding: zeros on every side.

    Returns:
      [B,H',W',C].
    """
    return _depthwise(x, kernel, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, stride, padding):
    return _shifted(x, kernel, stride, padding)


def _shifted(x, kernel, stride=1, padding=0):
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = kernel.shape[:2]
    if padded.shape[1:3] == (rows, columns):
        return jnp.einsum("bhwc,hwc->bc", padded, kernel)[:, None, None]
    products = [
        _window(padded, i, j, rows, columns, stride) * kernel[None, i, j, None, None]
        for i in range(rows)
        for j in range(columns)
    ]
    return sum(products[1:], products[0])


def _window(padded, i, j, rows, columns, stride):
    """Every stride-th pixel that tap (i, j) of a rows x columns filter sees."""
    return padded[
        :,
        i : padded.shape[1] - rows + 1 + i : stride,
        j : padded.shape[2] - columns + 1 + j : stride,
    ]


def _depthwise_forward(x, kernel, stride, padding):
    return _depthwise(x, kernel, stride, padding), (x, kernel)


def _depthwise_backward(stride, padding, residuals, cotangent):
    x, kernel = residuals
    rows, columns = kernel.shape[:2]
    if cotangent.shape[1:3] == (1, 1) and padding == 0 and x.shape[1:3] == (rows, columns):
        dx = cotangent * kernel[None]
    else:
        dx = _shifted(_spread(cotangent, x.shape, rows, columns, stride, padding), _rotated(kernel))
    return dx, _depthwise_kernel_gradient(x, cotangent, rows, columns, stride, padding)


def _rotated(kernel):
    return jnp.flip(kernel, (0, 1))


def _spread(cotangent, shape, rows, columns, stride, padding):
    """The cotangent with zeros between its pixels and around them, so that a depthwise convolution
    with the rotated kernel makes the input gradient of it.

    Four phases without zeros would multiply less, but the CPU interleaves them one by one.
    """
    sides = zip(shape[1:3], cotangent.shape[1:3], (rows, columns), strict=True)
    zeros = [(k - 1 - padding, s + padding - stride * (n - 1) - 1, stride - 1) for s, n, k in sides]
    return lax.pad(cotangent, np.zeros((), cotangent.dtype), [(0, 0, 0), *zeros, (0, 0, 0)])


def _depthwise_kernel_gradient(x, cotangent, rows, columns, stride, padding):
    """[rows,columns,C]: per tap the sum of products, first over rows of whole image lines.

    Summed in that order the CPU adds long vectors, which takes it less time than all at once. Taps
    take turns in a loop: side by side XLA makes one of them all, which is slow, and for many taps
    very slow to compile (benchmarks/depthwise.py).
    """
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    if cotangent.shape[1:3] == (1, 1):
        return jnp.einsum("bhwc,bc->hwc", padded[:, :rows, :columns], cotangent[:, 0, 0])
    batch, height, width, channels = cotangent.shape
    reach = (batch, stride * (height - 1) + 1, stride * (width - 1) + 1, channels)

    def tap(place):
        seen = lax.dynamic_slice(padded, (0, place // columns, place % columns, 0), reach)
        products = seen[:, ::stride, ::stride] * cotangent
        lines = products.reshape(-1, width * channels).sum(0)
        return lines.reshape(width, channels).sum(0)

    return lax.map(tap, jnp.arange(rows * columns)).reshape(rows, columns, channels)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)
