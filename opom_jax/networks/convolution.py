"""Convolutions whose input gradients stay fast: what is costly backwards becomes forward work.

Masks are made by differentiating networks with respect to their *images*, so the input gradient
is the hot path. XLA's own gradient of a strided convolution multiplies zeros (dilation) and, inside
a loop on the CPU, leaves the fast kernels altogether; the rules below write it as a plain
convolution, or on the CPU as matrix products. Arrays are NHWC, kernels HWIO.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from opom_jax.networks import winograd

FEW_CHANNELS = 4
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Sides = int | tuple[int, int]  # of both axes, or (rows, columns)
Known = jax.Array | winograd.Tiles  # of a kernel, see `known_of`


def pair(value: Sides) -> tuple[int, int]:
    """One number for both axes, or one an axis."""
    return (value, value) if isinstance(value, int) else value


def _convolve(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
    )


def _turned(kernel, stride):
    """[K,L,O,I], for stride 1 rotated by half a turn: what the input gradient multiplies with."""
    swapped = kernel.swapaxes(2, 3)
    return jnp.flip(swapped, (0, 1)) if stride == 1 else swapped


def known_of(kernel: jax.Array, stride: int) -> Known:
    """What `convolution` works out from a kernel [K,L,I,O] alone, so that it is done once."""
    return winograd.tiles(kernel) if winograd.pays(kernel, stride) else _turned(kernel, stride)


@partial(jax.jit, static_argnames=("stride", "padding"))
def convolution(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: Sides = 0,
    known: Known | None = None,
) -> jax.Array:
    """2-D cross-correlation whose input gradient is itself a forward convolution.

    Compiled into what calls it; jitted so that JAX traces it once for all layers of a shape.

    Args:
      x: [B,H,W,I]; any float type.
      kernel: [K,L,I,O].
      stride: step of both axes.
      padding: zeros on every side, or (above and below, left and right).
      known: `known_of(kernel, stride)`, if that has been worked out; no gradient reaches it.

    Returns:
      [B,H',W',O], H' = (H + 2 padding - K) // stride + 1.
    """
    return _convolution(x, kernel, stride, padding, known)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x, kernel, stride, padding, known):
    if isinstance(known, tuple):
        return winograd.convolution(x, known, pair(padding))
    return _convolve(x, kernel, stride, [(p, p) for p in pair(padding)])


def _convolution_forward(x, kernel, stride, padding, known):
    return _convolution(x, kernel, stride, padding, known), (x, kernel, known)


def _convolution_backward(stride, padding, residuals, cotangent):
    x, kernel, known = residuals
    padding, sides = pair(padding), kernel.shape[:2]
    pads = [(p, p) for p in padding]
    _, vjp_kernel = jax.vjp(lambda k: _convolve(x, k, stride, pads), kernel)
    rows, columns = (side - 1 - p for side, p in zip(sides, padding, strict=True))
    if kernel.shape[2] <= FEW_CHANNELS and jax.default_backend() == "cpu":
        dx = _gradient_of_planes(cotangent, kernel, stride, padding, x.shape)
    elif isinstance(known, tuple):
        dx = winograd.convolution(cotangent, known, (rows, columns), turned=True)
    elif stride == 1:
        full = [(rows, rows), (columns, columns)]
        dx = _convolve(cotangent, _turned(kernel, 1) if known is None else known, 1, full)
    elif (stride, sides) == (2, (3, 3)) and padding in ((0, 0), (1, 1)):
        swapped = _turned(kernel, 2) if known is None else known
        dx = _subpixel_gradient(cotangent, swapped, padding[0], x.shape)
    else:
        _, vjp_x = jax.vjp(lambda v: _convolve(v, kernel, stride, pads), x)
        (dx,) = vjp_x(cotangent)
    return dx, vjp_kernel(cotangent)[0], None


def _gradient_of_planes(cotangent, kernel, stride, padding, shape):
    """Input gradient of a convolution of few channels, such as a picture's, for which the CPU's
    library is slow: one matrix product makes what each tap gives, and the pixels that lie `stride`
    apart add up theirs, plane by plane.
    """
    products = lax.dot_general(cotangent, kernel, (((3,), (3,)), ((), ())))
    products = products.transpose(3, 4, 5, 0, 1, 2)
    *_, channels, batch, height, width = products.shape
    rows, columns = (-(-side // stride) for side in shape[1:3])

    def reached(side, padding, first):
        """(tap, by how much its cotangent comes after the pixel) for the pixels from `first` on."""
        ways = [(k, *divmod(first + padding - k, stride)) for k in range(side)]
        return [(k, after) for k, after, rest in ways if not rest]

    def pixels(i, j):
        y = jnp.zeros((channels, batch, rows, columns), cotangent.dtype)
        for k, down in reached(kernel.shape[0], padding[0], i):
            for n, right in reached(kernel.shape[1], padding[1], j):
                ends = (-down, rows - height + down, 0), (-right, columns - width + right, 0)
                zero = np.zeros((), cotangent.dtype)
                y += lax.pad(products[k, n], zero, [(0, 0, 0), (0, 0, 0), *ends])
        return y

    lines = [jnp.stack([pixels(i, j) for j in range(stride)], -1) for i in range(stride)]
    y = jnp.stack(lines, 3).reshape(channels, batch, rows * stride, columns * stride)
    return y[:, :, : shape[1], : shape[2]].transpose(1, 2, 3, 0)


# padding -> for even and odd pixels: taps of the kernel, zeros before and after the gradient
_PHASES = {
    0: ((slice(None, None, -2), (1, 1)), (slice(1, 2), (0, 1))),
    1: ((slice(1, 2), (0, 0)), (slice(None, None, -2), (0, 1))),
}


def _subpixel_gradient(cotangent, kernel, padding, shape):
    """Input gradient of a 3x3, stride 2 convolution, padding 0 or 1, on images of any size, by its
    turned kernel.

    Along one axis, with padding 1, the gradient at pixel 2m is dy[m] w[1], at 2m+1 it is
    dy[m] w[2] + dy[m+1] w[0]; with padding 0 it is dy[m-1] w[2] + dy[m] w[0] at 2m and dy[m] w[1]
    at 2m+1: four convolutions of one, two, two and four taps, interleaved afterwards.
    """
    phases = [
        _convolve(cotangent, kernel[rows, columns], 1, [of_rows, of_columns])
        for rows, of_rows in _PHASES[padding]
        for columns, of_columns in _PHASES[padding]
    ]
    return _interleaved(phases)[:, : shape[1], : shape[2]]


def _interleaved(phases):
    """Four [B,H,W,C] of even and odd rows, in each of even and odd columns -> [B,2H,2W,C]."""
    b, h, w, c = phases[0].shape
    stacked = jnp.stack(phases, 3).reshape(b, h, w, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return stacked.reshape(b, 2 * h, 2 * w, c)


_convolution.defvjp(_convolution_forward, _convolution_backward)
