"""Convolutions and what goes with them, channels last."""

import math
from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax

from opom_jax.networks.convolution import convolution
from opom_jax.networks.depthwise import depthwise
from opom_jax.networks.operators.value import (
    MAX_PADDING,
    Array,
    Attributes,
    Value,
    integers,
    of_rank,
    operator,
)

_MAX_UNROLLED = 256  # taps of a depthwise kernel


def _sides(given: Attributes, sizes: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) of zeros along both axes."""
    strides, dilations = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    if (auto := given.get("auto_pad", "NOTSET")) in ("NOTSET", "VALID"):
        top, left, bottom, right = given.get("pads", (0, 0, 0, 0)) if auto == "NOTSET" else [0] * 4
        if max(abs(side) for side in (top, left, bottom, right)) > MAX_PADDING:
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
    return Value(y if bias is None else y + of_rank(bias.array, 4), True)


def _is_depthwise(shape: tuple[int, ...]) -> bool:
    """Whether a kernel has one filter a channel, of few enough taps to be written one by one."""
    return shape[2] == 1 and shape[0] * shape[1] <= _MAX_UNROLLED


@operator("BatchNormalization")
def _batch_norm(given: Attributes, x: Value, *statistics: Value) -> Value:
    gamma, beta, mean, variance = (value.array for value in statistics)
    factor = gamma * lax.rsqrt(variance + given.get("epsilon", 1e-5))
    shape = (-1,) if x.last else (-1, *[1] * (x.array.ndim - 2))
    factor, offset = (
        of_rank(array.reshape(shape), x.array.ndim) for array in (factor, beta - mean * factor)
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
        wanted = integers(sizes)
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
