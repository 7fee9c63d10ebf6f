"""Products, sums and norms."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from opom_jax.networks.operators.value import (
    Array,
    Attributes,
    Value,
    integers,
    of_rank,
    operator,
)


def _product(left: Array, right: Array) -> Array:
    """In the type of the right one, a weight as a rule; given back in the wider of both."""
    wide = jnp.promote_types(left.dtype, right.dtype)
    return (left.astype(right.dtype) @ right).astype(wide)


@operator("Gemm")
def _gemm(given: Attributes, a: Value, b: Value, c: Value | None = None) -> Value:
    left = a.plain.T if given.get("transA") else a.plain
    right = b.plain.T if given.get("transB") else b.plain
    product = given.get("alpha", 1.0) * _product(left, right)
    return Value(product if c is None else product + given.get("beta", 1.0) * of_rank(c.plain, 2))


@operator("MatMul")
def _matmul(_: Attributes, a: Value, b: Value) -> Value:
    return Value(_product(a.plain, b.plain))


def _reduced(given: Attributes, x: Value, axes: Value | None) -> tuple[tuple[int, ...], bool]:
    named = integers(axes, given.get("axes", ()))
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
    y = y * of_rank(scale.plain, array.ndim)
    return Value(y if bias is None else y + of_rank(bias.plain, array.ndim))


@operator("InstanceNormalization")
def _instance_norm(given: Attributes, x: Value, scale: Value, bias: Value) -> Value:
    image = x.channels_last
    centred = image - image.mean((1, 2), keepdims=True)
    variance = (centred**2).mean((1, 2), keepdims=True)
    y = centred * lax.rsqrt(variance + given.get("epsilon", 1e-5))
    return Value(y * of_rank(scale.array, 4) + of_rank(bias.array, 4), True)
