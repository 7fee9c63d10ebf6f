"""What both translators share: a graph that grows node by node."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from opom_jax.networks.graph import NUMBERS, Graph, Node

_MAX_INTEGERS = 1 << 16  # in one array
_MAX_REASON = 300  # characters, which may be names of the file


class Untranslatable(Exception):
    """A node that has no counterpart; the text says which and why, after the file's name, and what
    mends it."""

    def __init__(self, reason: str, mend: str = "export the network in another form"):
        super().__init__(f"{reason[:_MAX_REASON]}; {mend}")


class Building:
    """A graph under construction, and its arrays.

    Attributes:
      nodes: so far.
      arrays: {name: array}; floating ones become weights, integers constants.
    """

    def __init__(self):
        self.nodes: list[Node] = []
        self.arrays: dict[str, np.ndarray] = {}

    def add(
        self,
        operator: str,
        name: str,
        inputs: Iterable[str],
        outputs: Iterable[str] = (),
        **attributes: Any,
    ) -> str:
        """Appends a node; its first output's name, which is the node's own if none is given."""
        made = tuple(outputs) or (name,)
        given = tuple((key, value) for key, value in attributes.items() if value is not None)
        self.nodes.append(Node(operator, name, tuple(inputs), made, given))
        return made[0]

    def constant(self, name: str, value) -> str:
        """Adds an array that is no parameter of the file; its name."""
        self.arrays[name] = np.asarray(value)
        return name

    def entered(self, name: str, array: np.ndarray) -> None:
        """Adds an array of the file; Untranslatable if there is one of that name."""
        if name in self.arrays:
            raise Untranslatable(f"holds the array {name!r} twice")
        self.arrays[name] = array

    def finish(
        self, input: str, output: str, shape: tuple[int, int, int, int]
    ) -> tuple[Graph, dict[str, np.ndarray]]:
        """The graph with what the output needs and no more, and its float32 weights."""
        nodes = self._needed(output)
        read = {name for node in nodes for name in node.inputs}
        weights, constants = {}, []
        for name in sorted(read & self.arrays.keys()):
            array = self.arrays[name]
            if jnp.issubdtype(array.dtype, jnp.floating):
                with np.errstate(over="ignore"):  # float64 beyond float32: inf, refused later
                    weights[name] = np.ascontiguousarray(array, np.float32)
            elif array.dtype.name not in NUMBERS or array.size > _MAX_INTEGERS:
                kind = f"{array.size} numbers of type {array.dtype.name}"
                raise Untranslatable(f"has {kind} in {name!r}, neither weights nor shapes")
            else:
                numbers = tuple(int(n) for n in array.ravel())
                constants.append((name, array.dtype.name, array.shape, numbers))
        shapes = tuple((name, array.shape) for name, array in weights.items())
        graph = Graph(tuple(nodes), input, output, shape, tuple(constants), shapes)
        graph.check()
        return graph, weights

    def _needed(self, output: str) -> list[Node]:
        wanted, kept = {output}, []
        for node in reversed(self.nodes):
            if wanted & set(node.outputs):
                wanted.update(node.inputs)
                kept.append(node)
        return kept[::-1]


def chosen(table: Mapping[str, Any], key: str, what: str) -> Any:
    """table[key], or Untranslatable naming what was asked for."""
    if key not in table:
        raise Untranslatable(f"has {what} {key!r}, which is not known here")
    return table[key]
