"""Layers whose input gradients stay fast: the costly backward passes are forward convolutions.

Masks are made by differentiating networks with respect to their *images*, so the input gradient
is the hot path. XLA's own gradient of a strided convolution multiplies zeros (dilation) and, inside
a loop on the CPU, leaves the fast kernels altogether; the rules below write it as a plain
convolution instead. Arrays are NHWC, kernels HWIO.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

BATCH_NORM_EPSILON = 1e-5
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _convolve(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """2-D cross-correlation whose input gradient is itself a forward convolution.

    Args:
      x: [B,H,W,I]; any float type.
      kernel: [K,K,I,O].
      stride: step of both axes.
      padding: zeros on every side.

    Returns:
      [B,H',W',O], H' = (H + 2 padding - K) // stride + 1.
    """
    return _convolve(x, kernel, stride, [(padding, padding)] * 2)


def _convolution_forward(x, kernel, stride, padding):
    return convolution(x, kernel, stride, padding), (x, kernel)


def _convolution_backward(stride, padding, residuals, cotangent):
    x, kernel = residuals
    _, vjp_kernel = jax.vjp(lambda k: _convolve(x, k, stride, [(padding, padding)] * 2), kernel)
    size, even = kernel.shape[0], x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    if stride == 1:
        flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
        dx = _convolve(cotangent, flipped, 1, [(size - 1 - padding,) * 2] * 2)
    elif (stride, size, padding) == (2, 3, 1) and even:
        dx = _subpixel_gradient(cotangent, kernel)
    else:
        _, vjp_x = jax.vjp(lambda v: _convolve(v, kernel, stride, [(padding, padding)] * 2), x)
        (dx,) = vjp_x(cotangent)
    return dx, vjp_kernel(cotangent)[0]


def _subpixel_gradient(cotangent, kernel):
    """Input gradient of a 3x3, stride 2, padding 1 convolution on even images.

    Along one axis the gradient at pixel 2m is dy[m] w[1], at 2m+1 it is dy[m] w[2] + dy[m+1] w[0]:
    a two-tap convolution with two output phases, interleaved afterwards.
    """
    zero = jnp.zeros_like(kernel[0])
    taps = jnp.stack([jnp.stack([kernel[1], zero]), jnp.stack([kernel[2], kernel[0]])])
    zero = jnp.zeros_like(taps[:, :, 0])
    taps = jnp.stack(  # [phase W, tap W, phase H, tap H, I, O]
        [jnp.stack([taps[:, :, 1], zero]), jnp.stack([taps[:, :, 2], taps[:, :, 0]])]
    )
    inputs, outputs = kernel.shape[2:]
    taps = taps.transpose(3, 1, 5, 2, 0, 4).reshape(2, 2, outputs, 4 * inputs)
    phases = _convolve(cotangent, taps, 1, [(0, 1)] * 2)
    b, h, w, _ = cotangent.shape
    phases = phases.reshape(b, h, w, 2, 2, inputs).transpose(0, 1, 3, 2, 4, 5)
    return phases.reshape(b, 2 * h, 2 * w, inputs)


convolution.defvjp(_convolution_forward, _convolution_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """Depthwise 2-D cross-correlation as shifted multiply-adds, which XLA fuses into one loop.

    Args:
      x: [B,H,W,C].
      kernel: [K,L,C], one filter a channel.
      stride: step of both axes.
      padding: zeros on every side.

    Returns:
      [B,H',W',C].
    """
    return _shifted(x, kernel, stride, padding)


def _shifted(x, kernel, stride, padding):
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
    return depthwise(x, kernel, stride, padding), (x, kernel)


def _depthwise_backward(stride, padding, residuals, cotangent):
    x, kernel = residuals
    direct = partial(_shifted, stride=stride, padding=padding)
    _, vjp_kernel = jax.vjp(lambda k: direct(x, k), kernel)
    rows, columns = kernel.shape[:2]
    even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    if cotangent.shape[1:3] == (1, 1) and padding == 0 and x.shape[1:3] == (rows, columns):
        dx = cotangent * kernel[None]
    elif stride == 1 and rows == columns:
        dx = _shifted(cotangent, jnp.flip(kernel, (0, 1)), 1, rows - 1 - padding)
    elif (stride, rows, columns, padding) == (2, 3, 3, 1) and even:
        dx = _depthwise_subpixel_gradient(cotangent, kernel)
    else:
        _, vjp_x = jax.vjp(lambda v: direct(v, kernel), x)
        (dx,) = vjp_x(cotangent)
    return dx, vjp_kernel(cotangent)[0]


def _depthwise_subpixel_gradient(cotangent, kernel):
    """As `_subpixel_gradient`, one channel at a time: four phases of 1, 2, 2 and 4 products."""
    b, h, w, c = cotangent.shape
    dy = jnp.pad(cotangent, ((0, 0), (0, 1), (0, 1), (0, 0)))
    taps = ([(1, 0)], [(2, 0), (0, 1)])  # phase -> (kernel index, shift of dy)
    phases = [
        sum(
            dy[:, di : di + h, dj : dj + w] * kernel[None, i, j, None, None]
            for i, di in taps[row]
            for j, dj in taps[col]
        )
        for row in (0, 1)
        for col in (0, 1)
    ]
    stacked = jnp.stack(phases, 3).reshape(b, h, w, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return stacked.reshape(b, 2 * h, 2 * w, c)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


class Conv(nnx.Module):
    """Convolution with a square kernel [K,K,I,O]; computes in the kernel's own type."""

    def __init__(self, inputs, outputs, size, *, stride=1, padding=0, bias=False, rngs: nnx.Rngs):
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (size, size, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        y: jax.Array = convolution(x.astype(kernel.dtype), kernel, self.stride, self.padding)  # pyright: ignore
        return y if self.bias is None else y + self.bias[None, None, None]


class DepthwiseConv(nnx.Module):
    """One filter a channel, kernel [K,L,C]."""

    def __init__(self, channels, size, *, stride=1, padding=0, rngs: nnx.Rngs):
        rows, columns = size
        init = nnx.initializers.normal((rows * columns) ** -0.5)
        self.kernel = nnx.Param(init(rngs.params(), (rows, columns, channels), jnp.float32))
        self.stride, self.padding = stride, padding

    def __call__(self, x: jax.Array) -> jax.Array:
        return depthwise(x, self.kernel[...], self.stride, self.padding)


class PReLU(nnx.Module):
    """x where x > 0, else slope * x, a slope a channel."""

    def __init__(self, channels, *, rngs: nnx.Rngs):
        del rngs
        self.slope = nnx.Param(jnp.full(channels, 0.25))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, x, self.slope[None, None, None] * x)


class FlatDense(nnx.Module):
    """Fully connected layer over a whole feature map: kernel [H,W,C,D], bias [D]."""

    def __init__(self, height, width, channels, outputs, *, rngs: nnx.Rngs):
        init = nnx.initializers.normal((height * width * channels) ** -0.5)
        shape = (height, width, channels, outputs)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].reshape(-1, self.kernel.shape[-1])
        return x.reshape(x.shape[0], -1).astype(kernel.dtype) @ kernel + self.bias[None]


def batch_norm(channels: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch normalisation as torch keeps it (eps 1e-5, decay 0.9), in inference mode."""
    return nnx.BatchNorm(
        channels, use_running_average=True, momentum=0.9, epsilon=BATCH_NORM_EPSILON, rngs=rngs
    )
