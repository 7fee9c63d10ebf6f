"""Operators that move numbers about."""

import math

import jax.numpy as jnp
import numpy as np

from opom_jax.networks.operators.value import (
    KNOWN,
    MAX_PADDING,
    Attributes,
    Value,
    fitting,
    integers,
    library_of,
    operator,
)

_MAX_PARTS = 1000


@operator("Shape")
def _shape(given: Attributes, x: Value) -> Value:
    return Value(np.array(x.shape[given.get("start", 0) : given.get("end")], np.int64))


@operator("Reshape")
def _reshape(given: Attributes, x: Value, shape: Value) -> Value:
    wanted = integers(shape)
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
    return Value(x.plain.squeeze(tuple(integers(axes)) if axes is not None else None))


@operator("Unsqueeze")
def _unsqueeze(_: Attributes, x: Value, axes: Value) -> Value:
    library = library_of([x])
    return Value(library.expand_dims(x.plain, tuple(integers(axes))))


@operator("Concat")
def _concat(given: Attributes, *values: Value) -> Value:
    axis, last = given["axis"], all(value.last for value in values)
    if last:
        return Value(jnp.concatenate([v.array for v in values], (0, 3, 1, 2)[axis]), True)
    return Value(library_of(values).concatenate([value.plain for value in values], axis))


@operator("Split")
def _split(given: Attributes, x: Value, sizes: Value | None = None) -> list[Value]:
    axis = given.get("axis", 0)
    parts = given["parts"] if sizes is None else np.cumsum(integers(sizes))[:-1]
    if not 0 < (parts if sizes is None else len(parts) + 1) <= _MAX_PARTS:
        raise ValueError("parts that are none or too many")
    if x.last:
        return [Value(part, True) for part in jnp.split(x.array, parts, (0, 3, 1, 2)[axis])]
    return [Value(part) for part in library_of([x]).split(x.array, parts, axis)]


@operator("Slice")
def _slice(_: Attributes, x: Value, starts: Value, ends: Value, axes=None, steps=None) -> Value:
    first, last = integers(starts), integers(ends)
    chosen = [slice(None)] * x.array.ndim
    along = integers(axes, range(len(first)))
    for axis, a, b, step in zip(along, first, last, integers(steps, [1] * len(first)), strict=True):
        chosen[axis] = slice(a, None if step < 0 and b < -x.shape[axis] else b, step)
    if x.last:
        n, c, h, w = chosen
        return Value(x.array[n, h, w, c], True)
    return Value(x.array[tuple(chosen)])


@operator("Gather")
def _gather(given: Attributes, x: Value, indices: Value) -> Value:
    found = library_of([x, indices]).take(x.plain, indices.array, given.get("axis", 0))
    return Value(np.asarray(found) if isinstance(found, np.generic) else found)


@operator("Expand")
def _expand(_: Attributes, x: Value, shape: Value) -> Value:
    full = fitting(np.broadcast_shapes(x.shape, tuple(integers(shape))))
    return Value(library_of([x]).broadcast_to(x.plain, full))


@operator("ConstantOfShape")
def _constant_of_shape(given: Attributes, shape: Value) -> Value:
    value = np.asarray(given.get("value", np.zeros(1, np.float32)))
    full = fitting(integers(shape))
    library = np if math.prod(full) <= KNOWN else jnp
    return Value(library.full(full, value.ravel()[0], value.dtype))


@operator("Pad")
def _pad(given: Attributes, x: Value, pads: Value, value=None, axes=None) -> Value:
    count, amounts = x.array.ndim, integers(pads)
    chosen = [axis % count for axis in integers(axes, range(count))]
    sides = [(0, 0)] * count
    for k, axis in enumerate(chosen):
        sides[axis] = amounts[k], amounts[k + len(chosen)]
    mode, array, constant = given.get("mode", "constant"), x.array, {}
    for n, pair in zip(x.shape, sides, strict=True):
        if max(pair) > (MAX_PADDING if mode in ("constant", "edge") else max(n - 1, 0)):
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
