"""Elementwise operators, on whatever layout there is."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from opom_jax.networks.operators.value import (
    Array,
    Attributes,
    Value,
    fitting,
    library_of,
    of_rank,
    operator,
)


def _broadcast(function: Callable[..., Array], values: Sequence[Value]) -> Value:
    """function(library, *arrays) of arrays in one layout."""
    library, last = library_of(values), any(value.last for value in values)
    arrays = [value.channels_last if last else value.array for value in values]
    fitting(np.broadcast_shapes(*(array.shape for array in arrays)))
    rank = max(array.ndim for array in arrays)
    with np.errstate(all="ignore"):  # as JAX
        found = function(library, *(of_rank(array, rank) for array in arrays))
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
