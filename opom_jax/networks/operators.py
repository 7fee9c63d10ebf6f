"""The operators of graph networks: ONNX's, by its names and semantics, as differentiable JAX.

A graph speaks of [N,C,H,W]; convolutions are fast on [N,H,W,C]. So a `Value` may hold its array
with the channels moved to the end, and operators that do not care leave them there: nothing is
transposed between the first convolution and the flattening before the embedding. What is known
without the image (shapes, constants) stays NumPy and is computed while tracing.

An operator is a function (attributes, *values) -> a value or a list of them, None standing for an
input that is left out; `OPERATORS` is their table.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from opom_jax.networks.layers import convolution, depthwise

Array = Any  # np.ndarray if known while tracing, else jax.Array
Attributes = Mapping[str, Any]


class Value(NamedTuple):
    """An array of a graph.

    Attributes:
      array: as the graph means it, or, with `last`, [N,H,W,C] for its [N,C,H,W].
      last: whether the channels were moved to the end.
    """

    array: Array
    last: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """As the graph means it."""
        if not self.last:
            return tuple(self.array.shape)
        n, h, w, c = self.array.shape
        return n, c, h, w

    @property
    def plain(self) -> Array:
        """The array as the graph means it."""
        return self.array.transpose(0, 3, 1, 2) if self.last else self.array

    @property
    def channels_last(self) -> Array:
        """The array, to be broadcast against [N,H,W,C]."""
        if self.last:
            return self.array
        if self.array.ndim > 4:
            raise ValueError(f"{self.array.ndim} dimensions beside an image")
        return _of_rank(self.array, 4).transpose(0, 2, 3, 1)

    @property
    def constant(self) -> np.ndarray:
        """The array of an input that decides shapes."""
        if not isinstance(self.array, np.ndarray):
            raise ValueError("what must be constant is computed from the image")
        return self.array


_LARGEST = 1 << 28  # numbers in an array; beyond any network, a gibibyte in float32
_KNOWN = 1 << 12  # in one that NumPy computes with: products of two of them are still small
_MAX_PADDING, _MAX_PARTS = 1024, 1000
_MAX_UNROLLED = 256  # taps of a depthwise kernel


def _fitting(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape; ValueError before anybody allocates what it asks for."""
    if math.prod(shape) > _LARGEST:
        raise ValueError(f"an array of shape {tuple(shape)} is too large")
    return tuple(shape)


def bounded(value: Value) -> Value:
    """The value, in JAX's hands if it is too long to decide a shape; ValueError if too large."""
    _fitting(value.shape)
    if isinstance(value.array, np.ndarray) and value.array.size > _KNOWN:
        return Value(jnp.asarray(value.array), value.last)
    return value


OPERATORS: dict[str, Callable[..., Value | list[Value]]] = {}


def operator(*names: str) -> Callable[[Callable], Callable]:
    """Enters a function into the table."""

    def enter(function):
        for name in names:
            OPERATORS[name] = function
        return function

    return enter


def _integers(value: Value | None, otherwise: Sequence[int] = ()) -> list[int]:
    return [int(v) for v in value.constant.ravel()] if value is not None else list(otherwise)


def _of_rank(array: Array, rank: int) -> Array:
    """With axes of length 1 in front, as broadcasting adds them."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _library(values: Sequence[Value]):
    return np if all(isinstance(value.array, np.ndarray) for value in values) else jnp


# Elementwise, on whatever layout there is.


def _broadcast(function: Callable[..., Array], values: Sequence[Value]) -> Value:
    """function(library, *arrays) of arrays in one layout."""
    library, last = _library(values), any(value.last for value in values)
    arrays = [value.channels_last if last else value.array for value in values]
    _fitting(np.broadcast_shapes(*(array.shape for array in arrays)))
    rank = max(array.ndim for array in arrays)
    with np.errstate(all="ignore"):  # as JAX
        found = function(library, *(_of_rank(array, rank) for array in arrays))
    return Value(np.asarray(found) if library is np else found, last)


def _divide(library, a, b):
    if all(np.issubdtype(x.dtype, np.integer) for x in (a, b)):
        return library.sign(a) * library.sign(b) * (abs(a) // abs(b))  # towards zero, as in C
    return a / b


_BINARY = {
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": _divide,
    "Pow": lambda _, a, b: a**b,
    "Equal": lambda _, a, b: a == b,
    "Less": lambda _, a, b: a < b,
    "Greater": lambda _, a, b: a > b,
    "Where": lambda library, test, a, b: library.where(test, a, b),
}
for _name, _function in _BINARY.items():
    operator(_name)(lambda _, *values, f=_function: _broadcast(f, values))

_FOLDED = {"Sum": "add", "Max": "maximum", "Min": "minimum"}
for _name, _function in _FOLDED.items():

    @operator(_name)
    def _fold(_: Attributes, first: Value, *more: Value, name=_function) -> Value:
        for other in more:
            first = _broadcast(lambda library, a, b: getattr(library, name)(a, b), [first, other])
        return first


# name -> (function of the array and the attributes, their defaults)
_UNARY: dict[str, tuple[Callable[..., Array], dict[str, float]]] = {
    "Relu": (lambda x: jnp.maximum(x, 0), {}),
    "LeakyRelu": (lambda x, alpha: jnp.where(x >= 0, x, alpha * x), {"alpha": 0.01}),
    "Elu": (lambda x, alpha: jax.nn.elu(x, alpha), {"alpha": 1.0}),
    "Selu": (jax.nn.selu, {}),
    "Sigmoid": (jax.nn.sigmoid, {}),
    "HardSigmoid": (
        lambda x, alpha, beta: jnp.clip(alpha * x + beta, 0, 1),
        {"alpha": 0.2, "beta": 0.5},
    ),
    "HardSwish": (lambda x: x * jnp.clip(x / 6 + 0.5, 0, 1), {}),
    "Softplus": (jax.nn.softplus, {}),
    "Softsign": (jax.nn.soft_sign, {}),
    "Tanh": (jnp.tanh, {}),
    "Erf": (jax.scipy.special.erf, {}),
    "Exp": (jnp.exp, {}),
    "Log": (jnp.log, {}),
    "Sqrt": (jnp.sqrt, {}),
    "Reciprocal": (lambda x: 1 / x, {}),
    "Neg": (lambda x: -x, {}),
    "Abs": (abs, {}),
    "Floor": (lambda x: np.floor(x) if isinstance(x, np.ndarray) else jnp.floor(x), {}),
    "Ceil": (lambda x: np.ceil(x) if isinstance(x, np.ndarray) else jnp.ceil(x), {}),
}
for _name, (_function, _defaults) in _UNARY.items():

    @operator(_name)
    def _apply(given: Attributes, x: Value, *, function=_function, defaults=_defaults) -> Value:
        chosen = {name: given.get(name, value) for name, value in defaults.items()}
        return Value(function(x.array, **chosen), x.last)


@operator("Gelu")
def _gelu(given: Attributes, x: Value) -> Value:
    approximate = given.get("approximate", "none") == "tanh"
    return Value(jax.nn.gelu(x.array, approximate), x.last)


@operator("Identity", "Dropout")
def _identity(_: Attributes, x: Value, *unused: Value | None) -> Value:
    return x


@operator("Clip")
def _clip(_: Attributes, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    bounds = (bound.array if bound is not None else None for bound in (low, high))
    return Value(jnp.clip(x.array, *bounds), x.last)


@operator("PRelu")
def _prelu(_: Attributes, x: Value, slope: Value) -> Value:
    return _broadcast(lambda library, a, s: library.where(a >= 0, a, s * a), [x, slope])


@operator("Cast")
def _cast(given: Attributes, x: Value) -> Value:
    if np.dtype(given["to"]).kind not in "biuf":
        raise ValueError(f"a cast to {given['to']!r}")
    return Value(x.array.astype(given["to"]), x.last)


# Convolutions and what goes with them, channels last.


def _sides(given: Attributes, sizes: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) of zeros along both axes."""
    strides, dilations = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    if (auto := given.get("auto_pad", "NOTSET")) in ("NOTSET", "VALID"):
        top, left, bottom, right = given.get("pads", (0, 0, 0, 0)) if auto == "NOTSET" else [0] * 4
        if max(abs(side) for side in (top, left, bottom, right)) > _MAX_PADDING:
            raise ValueError("a padding that is larger than any image needs")
        return [(top, bottom), (left, right)]
    found = []
    for size, side, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        span = dilation * (side - 1) + 1
        missing = max(0, (-(-size // stride) - 1) * stride + span - size)
        small, large = missing // 2, missing - missing // 2
        found.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return found


@operator("Conv")
def _conv(given: Attributes, x: Value, kernel: Value, bias: Value | None = None) -> Value:
    if kernel.array.ndim != 4:
        raise ValueError(f"a kernel of {kernel.array.ndim} dimensions")
    weights = kernel.array.transpose(2, 3, 1, 0)  # HWIO
    image = x.channels_last
    groups, channels = given.get("group", 1), image.shape[3]
    strides, dilations = tuple(given.get("strides", (1, 1))), tuple(given.get("dilations", (1, 1)))
    pads = _sides(given, image.shape[1:3], weights.shape[:2])
    even = len({*strides}) == 1 and dilations == (1, 1) and all(a == b for a, b in pads)
    (rows, _), (columns, _) = pads
    if even and groups == 1:
        y = convolution(image.astype(weights.dtype), weights, strides[0], (rows, columns))
    elif (
        even
        and rows == columns
        and groups == channels == weights.shape[3]
        and _is_depthwise(weights.shape)
    ):
        y = depthwise(image, weights[:, :, 0], strides[0], rows)
    else:
        y = lax.conv_general_dilated(
            image.astype(weights.dtype),
            weights,
            strides,
            pads,
            rhs_dilation=dilations,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
    y = cast(jax.Array, y).astype(image.dtype)
    return Value(y if bias is None else y + _of_rank(bias.array, 4), True)


def _is_depthwise(shape: tuple[int, ...]) -> bool:
    """Whether a kernel has one filter a channel, of few enough taps to be written one by one."""
    return shape[2] == 1 and shape[0] * shape[1] <= _MAX_UNROLLED


@operator("BatchNormalization")
def _batch_norm(given: Attributes, x: Value, *statistics: Value) -> Value:
    gamma, beta, mean, variance = (value.array for value in statistics)
    factor = gamma * lax.rsqrt(variance + given.get("epsilon", 1e-5))
    shape = (-1,) if x.last else (-1, *[1] * (x.array.ndim - 2))
    factor, offset = (
        _of_rank(array.reshape(shape), x.array.ndim) for array in (factor, beta - mean * factor)
    )
    return Value(x.array * factor + offset, x.last)


def _windows(given: Attributes, image: Array) -> tuple[tuple, tuple, list]:
    """Sizes, steps and paddings of pooling windows along all four axes."""
    kernel, strides = given["kernel_shape"], given.get("strides", (1, 1))
    pads = _sides(given, image.shape[1:3], kernel)
    if given.get("ceil_mode"):
        for axis, (low, high) in enumerate(pads):
            rest = (image.shape[1 + axis] + low + high - kernel[axis]) % strides[axis]
            pads[axis] = low, high + (strides[axis] - rest if rest else 0)
    return (1, *kernel, 1), (1, *strides, 1), [(0, 0), *pads, (0, 0)]


@operator("MaxPool")
def _max_pool(given: Attributes, x: Value) -> Value:
    image = x.channels_last
    return Value(lax.reduce_window(image, -jnp.inf, lax.max, *_windows(given, image)), True)


@operator("AveragePool")
def _average_pool(given: Attributes, x: Value) -> Value:
    image = x.channels_last
    kernel, strides, pads = _windows(given, image)
    total = lax.reduce_window(image, 0.0, lax.add, kernel, strides, pads)
    counted = jnp.ones((1, *image.shape[1:3], 1), jnp.float32)
    if given.get("count_include_pad"):
        zeros = _sides(given, image.shape[1:3], given["kernel_shape"])
        counted = jnp.pad(counted, [(0, 0), *zeros, (0, 0)], constant_values=1)
        pads = [
            (a - c, b - d) for (a, b), (c, d) in zip(pads, [(0, 0), *zeros, (0, 0)], strict=True)
        ]
    return Value(total / lax.reduce_window(counted, 0.0, lax.add, kernel, strides, pads), True)


@operator("GlobalAveragePool")
def _global_average(_: Attributes, x: Value) -> Value:
    return Value(x.channels_last.mean((1, 2), keepdims=True), True)


@operator("GlobalMaxPool")
def _global_max(_: Attributes, x: Value) -> Value:
    return Value(x.channels_last.max((1, 2), keepdims=True), True)


@operator("Resize")
def _resize(given: Attributes, x: Value, _roi=None, scales=None, sizes=None) -> Value:
    """Nearest by whole factors, and linear."""
    image, shape = x.channels_last, x.shape
    if sizes is not None:
        wanted = _integers(sizes)
    elif scales is not None:
        wanted = [math.floor(n * f) for n, f in zip(shape, scales.constant.ravel(), strict=True)]
    else:
        raise ValueError("neither scales nor sizes")
    if tuple(wanted[:2]) != shape[:2]:
        raise ValueError("other axes than height and width are resized")
    height, width = wanted[2:]
    mode, centres = given.get("mode", "nearest"), given.get("coordinate_transformation_mode")
    if mode == "nearest" and height % shape[2] == width % shape[3] == 0:
        image = jnp.repeat(image, height // shape[2], 1)
        return Value(jnp.repeat(image, width // shape[3], 2), True)
    if mode == "linear" and centres in (None, "half_pixel", "pytorch_half_pixel"):
        full = image.shape[0], height, width, image.shape[3]
        return Value(jax.image.resize(image, full, "linear", antialias=False), True)
    raise ValueError(f"resizing by {mode!r}, {centres!r}")


# Products.


def _product(left: Array, right: Array) -> Array:
    """In the type of the right one, a weight as a rule; given back in the wider of both."""
    wide = jnp.promote_types(left.dtype, right.dtype)
    return (left.astype(right.dtype) @ right).astype(wide)


@operator("Gemm")
def _gemm(given: Attributes, a: Value, b: Value, c: Value | None = None) -> Value:
    left = a.plain.T if given.get("transA") else a.plain
    right = b.plain.T if given.get("transB") else b.plain
    product = given.get("alpha", 1.0) * _product(left, right)
    return Value(product if c is None else product + given.get("beta", 1.0) * _of_rank(c.plain, 2))


@operator("MatMul")
def _matmul(_: Attributes, a: Value, b: Value) -> Value:
    return Value(_product(a.plain, b.plain))


# Shapes.


@operator("Shape")
def _shape(given: Attributes, x: Value) -> Value:
    return Value(np.array(x.shape[given.get("start", 0) : given.get("end")], np.int64))


@operator("Reshape")
def _reshape(given: Attributes, x: Value, shape: Value) -> Value:
    wanted = _integers(shape)
    if not given.get("allowzero"):
        wanted = [x.shape[k] if n == 0 else n for k, n in enumerate(wanted)]
    return Value(x.plain.reshape(wanted))


@operator("Flatten")
def _flatten(given: Attributes, x: Value) -> Value:
    axis = given.get("axis", 1)
    return Value(x.plain.reshape(math.prod(x.shape[:axis]), -1))


@operator("Transpose")
def _transpose(given: Attributes, x: Value) -> Value:
    return Value(x.plain.transpose(given.get("perm", tuple(reversed(range(x.array.ndim))))))


@operator("Squeeze")
def _squeeze(_: Attributes, x: Value, axes: Value | None = None) -> Value:
    return Value(x.plain.squeeze(tuple(_integers(axes)) if axes is not None else None))


@operator("Unsqueeze")
def _unsqueeze(_: Attributes, x: Value, axes: Value) -> Value:
    library = _library([x])
    return Value(library.expand_dims(x.plain, tuple(_integers(axes))))


@operator("Concat")
def _concat(given: Attributes, *values: Value) -> Value:
    axis, last = given["axis"], all(value.last for value in values)
    if last:
        return Value(jnp.concatenate([v.array for v in values], (0, 3, 1, 2)[axis]), True)
    return Value(_library(values).concatenate([value.plain for value in values], axis))


@operator("Split")
def _split(given: Attributes, x: Value, sizes: Value | None = None) -> list[Value]:
    axis = given.get("axis", 0)
    parts = given["parts"] if sizes is None else np.cumsum(_integers(sizes))[:-1]
    if not 0 < (parts if sizes is None else len(parts) + 1) <= _MAX_PARTS:
        raise ValueError("parts that are none or too many")
    if x.last:
        return [Value(part, True) for part in jnp.split(x.array, parts, (0, 3, 1, 2)[axis])]
    return [Value(part) for part in _library([x]).split(x.array, parts, axis)]


@operator("Slice")
def _slice(_: Attributes, x: Value, starts: Value, ends: Value, axes=None, steps=None) -> Value:
    first, last = _integers(starts), _integers(ends)
    chosen = [slice(None)] * x.array.ndim
    along = _integers(axes, range(len(first)))
    for axis, a, b, step in zip(
        along, first, last, _integers(steps, [1] * len(first)), strict=True
    ):
        chosen[axis] = slice(a, None if step < 0 and b < -x.shape[axis] else b, step)
    if x.last:
        n, c, h, w = chosen
        return Value(x.array[n, h, w, c], True)
    return Value(x.array[tuple(chosen)])


@operator("Gather")
def _gather(given: Attributes, x: Value, indices: Value) -> Value:
    found = _library([x, indices]).take(x.plain, indices.array, given.get("axis", 0))
    return Value(np.asarray(found) if isinstance(found, np.generic) else found)


@operator("Expand")
def _expand(_: Attributes, x: Value, shape: Value) -> Value:
    full = _fitting(np.broadcast_shapes(x.shape, tuple(_integers(shape))))
    return Value(_library([x]).broadcast_to(x.plain, full))


@operator("ConstantOfShape")
def _constant_of_shape(given: Attributes, shape: Value) -> Value:
    value = np.asarray(given.get("value", np.zeros(1, np.float32)))
    full = _fitting(_integers(shape))
    library = np if math.prod(full) <= _KNOWN else jnp
    return Value(library.full(full, value.ravel()[0], value.dtype))


@operator("Pad")
def _pad(given: Attributes, x: Value, pads: Value, value=None, axes=None) -> Value:
    count, amounts = x.array.ndim, _integers(pads)
    chosen = [axis % count for axis in _integers(axes, range(count))]
    sides = [(0, 0)] * count
    for k, axis in enumerate(chosen):
        sides[axis] = amounts[k], amounts[k + len(chosen)]
    mode, array, constant = given.get("mode", "constant"), x.array, {}
    for n, pair in zip(x.shape, sides, strict=True):
        if max(pair) > (_MAX_PADDING if mode in ("constant", "edge") else max(n - 1, 0)):
            raise ValueError("a padding that is larger than any image needs")
    if x.last:
        sides = [sides[k] for k in (0, 2, 3, 1)]
    if mode == "constant":
        constant = {"constant_values": 0 if value is None else value.array.reshape(())}
    return Value(jnp.pad(array, sides, mode, **constant), x.last)


@operator("CropLike")
def _crop_like(given: Attributes, x: Value, like: Value) -> Value:
    """MXNet's Crop: the height and width of another image, from an offset (y, x)."""
    (y, left), (_, height, width, _) = given["offset"], like.channels_last.shape
    return Value(x.channels_last[:, y : y + height, left : left + width], True)


# Sums and norms.


def _reduced(given: Attributes, x: Value, axes: Value | None) -> tuple[tuple[int, ...], bool]:
    named = _integers(axes, given.get("axes", ()))
    if not named and given.get("noop_with_empty_axes"):
        raise ValueError("a reduction over no axes")
    return tuple(named) or tuple(range(x.array.ndim)), bool(given.get("keepdims", 1))


_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "ReduceMean": jnp.mean,
    "ReduceSum": jnp.sum,
    "ReduceMax": jnp.max,
    "ReduceMin": jnp.min,
    "ReduceProd": jnp.prod,
    "ReduceSumSquare": lambda x, axes, keepdims: jnp.sum(x * x, axes, keepdims=keepdims),
    "ReduceL2": lambda x, axes, keepdims: jnp.sqrt(jnp.sum(x * x, axes, keepdims=keepdims)),
}
for _name, _function in _REDUCTIONS.items():

    @operator(_name)
    def _reduce(given: Attributes, x: Value, axes: Value | None = None, *, function=_function):
        over, keep = _reduced(given, x, axes)
        if x.last and keep:
            moved = tuple((0, 3, 1, 2)[axis] for axis in over)
            return Value(function(x.array, moved, keepdims=True), True)
        return Value(function(x.plain, over, keepdims=keep))


@operator("LpNormalization")
def _lp_normalization(given: Attributes, x: Value) -> Value:
    axis, order = given.get("axis", -1), given.get("p", 2)
    array = x.plain
    if order == 1:
        size = abs(array).sum(axis, keepdims=True)
    else:
        size = jnp.sqrt((array**2).sum(axis, keepdims=True) + given.get("epsilon", 0.0))
    return Value(array / jnp.maximum(size, 1e-12))


@operator("Softmax")
def _softmax(given: Attributes, x: Value) -> Value:
    return Value(jax.nn.softmax(x.plain, given.get("axis", -1)))


@operator("LayerNormalization")
def _layer_norm(given: Attributes, x: Value, scale: Value, bias: Value | None = None) -> Value:
    array = x.plain
    axes = tuple(range(given.get("axis", -1) % array.ndim, array.ndim))
    centred = array - array.mean(axes, keepdims=True)
    variance = (centred**2).mean(axes, keepdims=True)
    y = centred * lax.rsqrt(variance + given.get("epsilon", 1e-5))
    y = y * _of_rank(scale.plain, array.ndim)
    return Value(y if bias is None else y + _of_rank(bias.plain, array.ndim))


@operator("InstanceNormalization")
def _instance_norm(given: Attributes, x: Value, scale: Value, bias: Value) -> Value:
    image = x.channels_last
    centred = image - image.mean((1, 2), keepdims=True)
    variance = (centred**2).mean((1, 2), keepdims=True)
    y = centred * lax.rsqrt(variance + given.get("epsilon", 1e-5))
    return Value(y * _of_rank(scale.array, 4) + _of_rank(bias.array, 4), True)
