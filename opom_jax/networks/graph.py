"""Networks that are a list of operators: recognisers of MXNet or ONNX files without a family here.

A `Graph` is data, translated once by `converters/graphs`, stored as JSON in the network's card, and
run by `GraphNetwork`, an nnx module like any family: the same `embed`, the same folder.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from opom_jax.networks.operators import OPERATORS, Value, bounded

NUMBERS = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
NUMBERS += ("float16", "float32", "float64")
_MAX_NODES, _MAX_INPUTS = 10_000, 1000
_MAX_SIDE, _MAX_WEIGHTS = 4096, 1 << 29  # pixels; numbers in all


class Node(NamedTuple):
    """One operator.

    Attributes:
      operator: a name of `operators.OPERATORS`.
      name: what errors call it.
      inputs: names of values; "" for one that is left out.
      outputs: names of values.
      attributes: (name, value) pairs of JSON values, lists as tuples.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Graph:
    """A recogniser as a list of operators.

    Attributes:
      nodes: in an order in which every input exists.
      input: name of the image.
      output: name of the embedding.
      shape: of the input, one image: (1, 3, H, W) or (1, H, W, 3).
      constants: (name, dtype, shape, numbers) of what decides shapes: integers.
      weights: (name, shape) of every float32 array.
    """

    nodes: tuple[Node, ...]
    input: str
    output: str
    shape: tuple[int, int, int, int]
    constants: tuple[tuple[str, str, tuple[int, ...], tuple[int, ...]], ...]
    weights: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        _, a, b, c = self.shape
        return (b, c) if a == 3 else (a, b)

    def to_json(self) -> dict:
        """As lists and dicts."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, fields: Mapping) -> "Graph":
        """The inverse of `to_json`; ValueError, TypeError, KeyError if it is not of its form."""
        nodes = tuple(Node(*map(_frozen, node)) for node in fields["nodes"])
        rest: dict[str, Any] = {
            field.name: _frozen(fields[field.name]) for field in dataclasses.fields(cls)[1:]
        }
        graph = cls(nodes, **rest)
        graph.check()
        return graph

    def check(self) -> None:
        """Raises ValueError naming the first node that cannot be run, or what is too large."""
        self._check_sizes()
        there = {self.input, "", *(name for name, *_ in (*self.constants, *self.weights))}
        for node in self.nodes:
            if node.operator not in OPERATORS:
                raise ValueError(f"operator {node.operator!r} of node {node.name!r} is not known")
            absent = [name for name in node.inputs if name not in there]
            if absent:
                raise ValueError(f"node {node.name!r} reads {absent[0]!r}, which nothing makes")
            again = [name for name in node.outputs if name and name in there]
            if again:
                raise ValueError(f"node {node.name!r} makes {again[0]!r}, which is there already")
            there.update(node.outputs)
        if self.output not in there:
            raise ValueError(f"nothing makes the output {self.output!r}")

    def _check_sizes(self) -> None:
        """A card can state more than a machine can hold."""
        sides = (*self.shape, *(side for _, shape in self.weights for side in shape))
        if not all(type(side) is int and side >= 0 for side in sides):
            raise ValueError("a shape that is not of whole numbers")
        if not 0 < min(self.size) <= max(self.size) <= _MAX_SIDE:
            raise ValueError(f"it takes images of {self.size} pixels")
        if sum(math.prod(shape) for _, shape in self.weights) > _MAX_WEIGHTS:
            raise ValueError(f"it has more than {_MAX_WEIGHTS} weights")
        if any(dtype not in NUMBERS for _, dtype, *_ in self.constants):
            raise ValueError("a constant that is not of numbers")
        if len(self.nodes) > _MAX_NODES:
            raise ValueError(f"it has more than {_MAX_NODES} nodes")
        for node in self.nodes:
            plain = all(_plain(value) for _, value in node.attributes)
            if not plain or max(len(node.inputs), len(node.outputs)) > _MAX_INPUTS:
                raise ValueError(f"node {node.name!r} has attributes or inputs that no node has")


def _plain(value) -> bool:
    """Whether an attribute is a number, a text or some numbers."""
    if isinstance(value, tuple):
        return all(isinstance(number, int | float) for number in value)
    return isinstance(value, int | float | str)


def _frozen(value) -> Any:
    if isinstance(value, dict):
        raise TypeError("a JSON object in a graph")
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class GraphNetwork(nnx.Module):
    """Input [B,H,W,3] -> embedding [B,D] and no taps.

    The graph sees one image at a time, so that exports for one image run on any number of them;
    `vmap` merges them again.

    Args:
      graph: what to run.
      rngs: not used; weights start at zero and are filled by `recognizer`.
    """

    def __init__(self, graph: Graph, *, rngs: nnx.Rngs):
        del rngs
        self.graph = graph
        self.weights = nnx.Dict(
            {
                str(k): nnx.Dict({_leaf(shape): nnx.Param(jnp.zeros(shape))})
                for k, (_, shape) in enumerate(graph.weights)
            }
        )

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        arrays = {
            name: self.weights[str(k)][_leaf(shape)][...]
            for k, (name, shape) in enumerate(self.graph.weights)
        }
        return jax.vmap(lambda image: run(self.graph, arrays, image))(x), {}


@dataclasses.dataclass(frozen=True)
class Build:
    """rngs -> GraphNetwork, equal for equal graphs: what a `Spec` calls."""

    graph: Graph

    def __call__(self, rngs: nnx.Rngs) -> GraphNetwork:
        return GraphNetwork(self.graph, rngs=rngs)


def paths(graph: Graph) -> dict[str, str]:
    """{name of a weight: its path in the network}."""
    return {name: f"weights/{k}/{_leaf(s)}" for k, (name, s) in enumerate(graph.weights)}


def _leaf(shape: tuple[int, ...]) -> str:
    """A kernel, to which precision applies, has more than one axis."""
    return "kernel" if len(shape) > 1 else "vector"


def run(graph: Graph, weights: Mapping[str, jax.Array], image: jax.Array) -> jax.Array:
    """The embedding f32[D] of one image.

    Args:
      graph: checked.
      weights: {name: array} of `graph.weights`.
      image: f32[H,W,3].

    Raises:
      ValueError: a node that cannot be run on this image, by its name.
    """
    first = graph.shape[1] != 3
    values = {graph.input: Value(image[None], last=not first)} | dict(_constants(graph))
    values |= {name: Value(array) for name, array in weights.items()}
    for node in graph.nodes:
        given = [values[name] if name else None for name in node.inputs]
        try:
            made = OPERATORS[node.operator](dict(node.attributes), *given)
            made = [bounded(value) for value in (made if isinstance(made, list) else [made])]
        except Exception as error:  # JAX and NumPy raise many kinds for what does not fit
            raise ValueError(f"node {node.name!r} ({node.operator}): {error}") from error
        values.update(zip(node.outputs, made, strict=False))
    return values[graph.output].plain.reshape(-1)


def _constants(graph: Graph) -> Iterator[tuple[str, Value]]:
    for name, dtype, shape, numbers in graph.constants:
        yield name, bounded(Value(np.array(numbers, dtype).reshape(shape)))
