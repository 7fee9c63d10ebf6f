"""3x3 convolutions with 2.25 times fewer products, for the CPU (Lavin and Gray 2016, F(2x2, 3x3)).

Two neighbouring outputs of three taps take four products instead of six, along both axes 16 instead
of 36: every tile of 4x4 inputs becomes 16 sums and differences, so does every kernel, and of each
of the 16 the channels meet in a matrix product, which is what a CPU is best at. An accelerator's
library does the same by itself.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Tiles = tuple[jax.Array, ...]  # of a kernel: 16 arrays [I,O], rows first
LEAST_CHANNELS = 128  # with fewer, sums and differences cost what the products spare
_TURNED = (3, 1, 2, 0)  # what becomes of the rows and columns of tiles when a kernel is turned


def pays(kernel: jax.Array, stride: int) -> bool:
    """Whether `convolution` is faster than the library's, for a kernel [K,L,I,O]."""
    *sides, inputs, outputs = kernel.shape
    fits = (*sides, stride) == (3, 3, 1) and min(inputs, outputs) >= LEAST_CHANNELS
    return fits and kernel.dtype == jnp.float32 and jax.default_backend() == "cpu"


def tiles(kernel: jax.Array) -> Tiles:
    """A kernel f32[3,3,I,O] as `convolution` takes it."""
    return tuple(tap for line in _of_kernel(kernel) for tap in _of_kernel(line))


def convolution(
    x: jax.Array, kernel: Tiles, padding: tuple[int, int], *, turned: bool = False
) -> jax.Array:
    """2-D cross-correlation, stride 1. Rounding errors are about three times the direct sum's.

    Args:
      x: f32[B,H,W,I].
      kernel: of `tiles`.
      padding: zeros (above and below, left and right).
      turned: with the kernel rotated by half a turn and from outputs to inputs, which is what the
        input gradient is: x is f32[B,H,W,O], the result has I channels.

    Returns:
      f32[B,H',W',O], H' = H + 2 padding - 2.
    """
    (above, left), (batch, height, width, _) = padding, x.shape
    height, width = height + 2 * above - 2, width + 2 * left - 2
    rows, columns = -(-height // 2), -(-width // 2)
    below, right = 2 * rows - height + above, 2 * columns - width + left
    x = lax.pad(x, np.float32(0), [(0, 0, 0), (above, below, 0), (left, right, 0), (0, 0, 0)])

    lines = _of_inputs([x[:, i : i + 2 * rows - 1 : 2] for i in range(4)])
    spots = [_of_inputs([y[:, :, j : j + 2 * columns - 1 : 2] for j in range(4)]) for y in lines]
    order = _TURNED if turned else range(4)
    products = [
        [_product(spots[i][j], kernel[4 * order[i] + order[j]], turned) for j in range(4)]
        for i in range(4)
    ]
    halves = [_of_products(column) for column in zip(*products, strict=True)]
    quarters = [_of_products(row) for row in zip(*halves, strict=True)]
    y = jnp.stack([jnp.stack(row, 3) for row in quarters], 2)
    return y.reshape(batch, 2 * rows, 2 * columns, -1)[:, :height, :width]


def _product(x, matrix, transposed):
    return lax.dot_general(x, matrix, (((3,), (int(transposed),)), ((), ())))


def _of_inputs(d: Sequence[jax.Array]) -> list[jax.Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _of_kernel(k: jax.Array) -> list[jax.Array]:
    outer, half = 0.5 * (k[0] + k[2]), 0.5 * k[1]
    return [k[0], outer + half, outer - half, k[2]]


def _of_products(m: Sequence[jax.Array]) -> list[jax.Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
