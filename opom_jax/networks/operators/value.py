"""A value of a graph and the table of operators."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

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
        return of_rank(self.array, 4).transpose(0, 2, 3, 1)

    @property
    def constant(self) -> np.ndarray:
        """The array of an input that decides shapes."""
        if not isinstance(self.array, np.ndarray):
            raise ValueError("what must be constant is computed from the image")
        return self.array


LARGEST = 1 << 28  # numbers in an array; beyond any network, a gibibyte in float32
KNOWN = 1 << 12  # in one that NumPy computes with: products of two of them are still small
MAX_PADDING = 1024


def fitting(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape; ValueError before anybody allocates what it asks for."""
    if math.prod(shape) > LARGEST:
        raise ValueError(f"an array of shape {tuple(shape)} is too large")
    return tuple(shape)


def bounded(value: Value) -> Value:
    """The value, in JAX's hands if it is too long to decide a shape; ValueError if too large."""
    fitting(value.shape)
    if isinstance(value.array, np.ndarray) and value.array.size > KNOWN:
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


def integers(value: Value | None, otherwise: Sequence[int] = ()) -> list[int]:
    """The numbers of an input that decides shapes."""
    return [int(v) for v in value.constant.ravel()] if value is not None else list(otherwise)


def of_rank(array: Array, rank: int) -> Array:
    """With axes of length 1 in front, as broadcasting adds them."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def library_of(values: Sequence[Value]) -> ModuleType:
    """NumPy if it knows all values while tracing, else jax.numpy."""
    return np if all(isinstance(value.array, np.ndarray) for value in values) else jnp
