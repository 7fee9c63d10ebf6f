"""Layers of the face networks, and the functions between them.

Arrays are NHWC, kernels HWIO.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial, reduce
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from opom_jax.draws import drawn
from opom_jax.errors import InputError
from opom_jax.networks.convolution import Known, Sides, convolution, known_of, pair
from opom_jax.networks.depthwise import depthwise

BATCH_NORM_EPSILON = 1e-5
MXNET_EPSILON = 2e-5  # at the ends of all MXNet targets
# (number of places) -> (place, output) -> output, see `on_outputs`
Change = Callable[[int], Callable[[int, jax.Array], jax.Array]]


def abstract(build: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
    """What `build` makes, with shapes instead of numbers; nothing is computed.

    Every layer has the same key: to count keys under a trace takes most of the time.
    """

    def made() -> nnx.Module:
        key = jax.random.key(0)
        return build(cast(nnx.Rngs, SimpleNamespace(params=lambda: key)))

    return nnx.eval_shape(made)


def halved(size: int, factor: int) -> int:
    """Side of an image after halvings by `factor` in all, each rounded up (3x3, padding 1)."""
    return -(-size // factor)


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
    return depthwise(x, kernel, 1, size // 2)


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6), with torch's gradient: 0 from 6 on. JAX's own weighs ties, which takes the
    CPU three times as long."""
    return jnp.where(x < 6, jax.nn.relu(x), 6.0)


def unit_length(x: jax.Array, floor: float = 1e-12) -> jax.Array:
    """f32[B,D] divided by its norm, as Keras' l2_normalize: a squared norm is at least `floor`."""
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x**2, -1, keepdims=True), floor))


def he_normal(inputs: int) -> Callable[..., jax.Array]:
    """(key, shape) -> normal f32 of variance 2 / inputs, cut at two deviations (He et al.)."""
    cut = 0.87962566103423978  # deviation of what is left of a unit normal
    return nnx.initializers.truncated_normal((2 / inputs) ** 0.5 / cut)


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
        shape = (*pair(size), inputs, outputs)
        init = he_normal(math.prod(shape[:3]))
        self.kernel = nnx.Param(drawn(init, rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        x = x.astype(kernel.dtype)
        y = convolution(x, kernel, self.stride, self.padding, self.known)
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
        self.kernel = nnx.Param(drawn(init, rngs.params(), (rows, columns, channels)))
        self.bias = nnx.Param(jnp.zeros(channels)) if bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, x: jax.Array) -> jax.Array:
        y = depthwise(x, self.kernel[...], self.stride, self.padding)
        y = y if self.bias is None else y + self.bias[None, None, None]
        return y if self.after is None else self.after(y)


def on_outputs(network: nnx.Module, change: Change) -> None:
    """Lets what the convolutions of a network put out pass through `change`.

    Args:
      network: made for one call, as `nnx.merge` does; layers below the names of its attribute
        `spared` stay as they are.
      change: (number of convolutions) -> ((place of one, [B,H,W,C]) -> the same shape).

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
    changed = change(len(layers))
    for place, layer in enumerate(layers):
        layer.after = partial(changed, place)


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
    """Fully connected layer over a whole feature map: kernel [H,W,C,D] [, bias [D]]; sums, and what
    comes out, are float32 whatever the kernel's type."""

    def __init__(self, height, width, channels, outputs, *, bias: bool = True, rngs: nnx.Rngs):
        init = nnx.initializers.normal((height * width * channels) ** -0.5)
        shape = (height, width, channels, outputs)
        self.kernel = nnx.Param(drawn(init, rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].reshape(-1, self.kernel.shape[-1])
        x = x.reshape(x.shape[0], -1).astype(kernel.dtype)
        y = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
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
