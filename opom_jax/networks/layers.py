"""Layers whose input gradients stay fast: the costly backward passes are forward convolutions.

Masks are made by differentiating networks with respect to their *images*, so the input gradient
is the hot path. XLA's own gradient of a strided convolution multiplies zeros (dilation) and, inside
a loop on the CPU, leaves the fast kernels altogether; the rules below write it as a plain
convolution instead. Arrays are NHWC, kernels HWIO.
"""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from opom_jax.errors import InputError
from opom_jax.networks import winograd

BATCH_NORM_EPSILON = 1e-5
MXNET_EPSILON = 2e-5  # at the ends of all MXNet targets
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Sides = int | tuple[int, int]  # of both axes, or (rows, columns)
Known = jax.Array | winograd.Tiles  # of a kernel, see `known_of`
Change = Callable[[int, jax.Array], jax.Array]  # (place, output) -> output, see `on_outputs`


def _pair(value: Sides) -> tuple[int, int]:
    """One number for both axes, or one an axis."""
    return (value, value) if isinstance(value, int) else value


def halved(size: int, factor: int) -> int:
    """Side of an image after halvings by `factor` in all, each rounded up (3x3, padding 1)."""
    return -(-size // factor)


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


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: Sides = 0,
    known: Known | None = None,
) -> jax.Array:
    """2-D cross-correlation whose input gradient is itself a forward convolution.

    Args:
      x: [B,H,W,I]; any float type.
      kernel: [K,L,I,O].
      stride: step of both axes.
      padding: zeros on every side, or (above and below, left and right).
      known: `known_of(kernel, stride)`, if that has been worked out; no gradient reaches it.

    Returns:
      [B,H',W',O], H' = (H + 2 padding - K) // stride + 1.
    """
    if isinstance(known, tuple):
        return winograd.convolution(x, known, _pair(padding))
    return _convolve(x, kernel, stride, [(p, p) for p in _pair(padding)])


def _convolution_forward(x, kernel, stride, padding, known):
    return convolution(x, kernel, stride, padding, known), (x, kernel, known)


def _convolution_backward(stride, padding, residuals, cotangent):
    x, kernel, known = residuals
    padding, sides = _pair(padding), kernel.shape[:2]
    pads = [(p, p) for p in padding]
    _, vjp_kernel = jax.vjp(lambda k: _convolve(x, k, stride, pads), kernel)
    rows, columns = (side - 1 - p for side, p in zip(sides, padding, strict=True))
    if isinstance(known, tuple):
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
    rows, columns = kernel.shape[:2]
    even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    if cotangent.shape[1:3] == (1, 1) and padding == 0 and x.shape[1:3] == (rows, columns):
        dx = cotangent * kernel[None]
    elif stride == 1 and rows == columns > padding:
        dx = _shifted(cotangent, jnp.flip(kernel, (0, 1)), 1, rows - 1 - padding)
    elif (stride, rows, columns, padding) == (2, 3, 3, 1) and even:
        dx = _depthwise_subpixel_gradient(cotangent, kernel)
    else:
        _, vjp_x = jax.vjp(lambda v: direct(v, kernel), x)
        (dx,) = vjp_x(cotangent)
    return dx, _depthwise_kernel_gradient(x, cotangent, rows, columns, stride, padding)


def _depthwise_kernel_gradient(x, cotangent, rows, columns, stride, padding):
    """[rows,columns,C]: per tap the sum of products, first over rows of whole image lines.

    Summed in that order the CPU adds long vectors, which takes it less time than all at once.
    """
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    if cotangent.shape[1:3] == (1, 1):
        return jnp.einsum("bhwc,bc->hwc", padded[:, :rows, :columns], cotangent[:, 0, 0])
    _, _, width, channels = cotangent.shape

    def tap(i, j):
        products = _window(padded, i, j, rows, columns, stride) * cotangent
        lines = products.reshape(-1, width * channels).sum(0)
        return lines.reshape(width, channels).sum(0)

    return jnp.stack([jnp.stack([tap(i, j) for j in range(columns)]) for i in range(rows)])


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
    return _interleaved(phases)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def max_pool(x: jax.Array, size: int = 3, stride: int = 2) -> jax.Array:
    """Largest value of every window that lies inside, [B,H,W,C] -> [B,H',W',C].

    Maxima of shifted images, one axis after the other: XLA's own gradient of a window's maximum
    is several times slower on the CPU.
    """
    for axis in (1, 2):
        last = x.shape[axis] - size + 1
        shifted = [lax.slice_in_dim(x, i, last + i, stride, axis) for i in range(size)]
        x = reduce(jnp.maximum, shifted)
    return x


def mean_pool(x: jax.Array, size: int = 3) -> jax.Array:
    """Mean of the window around every pixel, size odd, shape kept.

    The zeros beyond the border count, as in MXNet (count_include_pad).
    """
    kernel = jnp.full((size, size, x.shape[3]), size**-2, x.dtype)
    return depthwise(x, kernel, 1, size // 2)  # pyright: ignore


def unit_length(x: jax.Array, floor: float = 1e-12) -> jax.Array:
    """f32[B,D] divided by its norm, as Keras' l2_normalize: a squared norm is at least `floor`."""
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x**2, -1, keepdims=True), floor))


class Conv(nnx.Module):
    """Convolution with a kernel [K,L,I,O]; computes in the kernel's own type."""

    after: Callable[[jax.Array], jax.Array] | None = None  # see `on_outputs`
    known: Known | None = None  # see `prepared`

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: Sides,
        *,
        stride: int = 1,
        padding: Sides = 0,
        bias: bool = False,
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (*_pair(size), inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        x = x.astype(kernel.dtype)
        y: jax.Array = convolution(x, kernel, self.stride, self.padding, self.known)  # pyright: ignore
        y = y if self.bias is None else y + self.bias[None, None, None]
        return y if self.after is None else self.after(y)

    def prepare(self) -> Known:
        """The kernel as `convolution` wants it."""
        return known_of(self.kernel[...], self.stride)


class DepthwiseConv(nnx.Module):
    """One filter a channel, kernel [K,L,C] [, bias [C]]."""

    after: Callable[[jax.Array], jax.Array] | None = None  # see `on_outputs`

    def __init__(self, channels, size, *, stride=1, padding=0, bias=False, rngs: nnx.Rngs):
        rows, columns = size
        init = nnx.initializers.normal((rows * columns) ** -0.5)
        self.kernel = nnx.Param(init(rngs.params(), (rows, columns, channels), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels)) if bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, x: jax.Array) -> jax.Array:
        y: jax.Array = depthwise(x, self.kernel[...], self.stride, self.padding)  # pyright: ignore
        y = y if self.bias is None else y + self.bias[None, None, None]
        return y if self.after is None else self.after(y)


def on_outputs(network: nnx.Module, change: Change) -> None:
    """Lets what the convolutions of a network put out pass through `change`.

    Args:
      network: made for one call, as `nnx.merge` does; layers below the names of its attribute
        `spared` stay as they are.
      change: (place, [B,H,W,C]) -> the same shape; places number the convolutions.

    Raises:
      InputError: the network has no convolution.
    """
    spared = set(getattr(network, "spared", ()))
    layers = [
        layer
        for path, layer in nnx.iter_modules(network)
        if isinstance(layer, Conv | DepthwiseConv) and spared.isdisjoint(path)
    ]
    if not layers:
        raise InputError("The network has no layer that dropout reaches; set config.dropout to 0.")
    for place, layer in enumerate(layers):
        layer.after = partial(change, place)


def prepared(network: nnx.Module) -> dict[str, Any]:
    """{path of a layer: what it works out from its weights alone}, for `with_prepared`."""
    return {
        "/".join(map(str, path)): layer.prepare()
        for path, layer in nnx.iter_modules(network)
        if isinstance(layer, Conv | BatchNorm)
    }


def with_prepared(network: nnx.Module, known: Mapping[str, Any]) -> None:
    """Gives the layers of a network, made for one call, what `prepared` worked out."""
    for path, layer in nnx.iter_modules(network):
        if isinstance(layer, Conv | BatchNorm):
            layer.known = known["/".join(map(str, path))]


class PReLU(nnx.Module):
    """x where x > 0, else slope * x, a slope a channel."""

    def __init__(self, channels, *, rngs: nnx.Rngs):
        del rngs
        self.slope = nnx.Param(jnp.full(channels, 0.25))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, x, self.slope[None, None, None] * x)


class FlatDense(nnx.Module):
    """Fully connected layer over a whole feature map: kernel [H,W,C,D] [, bias [D]]."""

    def __init__(self, height, width, channels, outputs, *, bias: bool = True, rngs: nnx.Rngs):
        init = nnx.initializers.normal((height * width * channels) ** -0.5)
        shape = (height, width, channels, outputs)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].reshape(-1, self.kernel.shape[-1])
        y = x.reshape(x.shape[0], -1).astype(kernel.dtype) @ kernel
        return y if self.bias is None else y + self.bias[None]


class Head(nnx.Module):
    """[B,side,side,channels] -> [B,embedding]: the head that the three MXNet families share.

    BN, (dropout, not here), flatten, fully connected, BN whose gamma is 1 without `scale`.
    """

    def __init__(
        self, side: int, channels: int, embedding: int, *, scale: bool = False, rngs: nnx.Rngs
    ):
        self.bn = batch_norm(channels, epsilon=MXNET_EPSILON, rngs=rngs)
        self.dense = FlatDense(side, side, channels, embedding, rngs=rngs)
        self.embedding_bn = batch_norm(embedding, epsilon=MXNET_EPSILON, scale=scale, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.embedding_bn(self.dense(self.bn(x).astype(jnp.float32)))


class BatchNorm(nnx.BatchNorm):
    """In inference mode one product and one sum, with numbers a channel."""

    known: tuple[jax.Array, jax.Array] | None = None  # see `prepared`

    def __call__(self, x: jax.Array, *arguments, **options) -> jax.Array:
        if not self.use_running_average or arguments or options:
            return super().__call__(x, *arguments, **options)
        factor, shift = self.known or self.prepare()
        own = (1,) * (x.ndim - 1) + (-1,)
        return x * factor.reshape(own) + shift.reshape(own)

    def prepare(self) -> tuple[jax.Array, jax.Array]:
        """Factor and shift f32[C]."""
        factor = lax.rsqrt(self.var[...] + self.epsilon)
        factor = factor if self.scale is None else factor * self.scale[...]
        bias = 0.0 if self.bias is None else self.bias[...]
        return factor, bias - self.mean[...] * factor


def batch_norm(
    channels: int,
    *,
    epsilon: float = BATCH_NORM_EPSILON,
    scale: bool = True,
    rngs: nnx.Rngs,
) -> BatchNorm:
    """Batch normalisation as torch keeps it (eps 1e-5, decay 0.9), in inference mode.

    Without `scale` its gamma is 1 and none is kept: MXNet's `fix_gamma=True`.
    """
    return BatchNorm(
        channels,
        use_running_average=True,
        momentum=0.9,
        epsilon=epsilon,
        use_scale=scale,
        rngs=rngs,
    )
