"""The operators of graph networks: ONNX's, by its names and semantics, as differentiable JAX.

A graph speaks of [N,C,H,W]; convolutions are fast on [N,H,W,C]. So a `Value` may hold its array
with the channels moved to the end, and operators that do not care leave them there: nothing is
transposed between the first convolution and the flattening before the embedding. What is known
without the image (shapes, constants) stays NumPy and is computed while tracing.

An operator is a function (attributes, *values) -> a value or a list of them, None standing for an
input that is left out; `OPERATORS` is their table.
"""

from opom_jax.networks.operators import elementwise, reductions, shapes, spatial  # noqa: F401
from opom_jax.networks.operators.value import OPERATORS, Value, bounded

__all__ = ["OPERATORS", "Value", "bounded"]
