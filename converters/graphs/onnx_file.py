"""ONNX files -> a graph network.

The `onnx` package parses the file; nothing is read from outside it. Older forms of operators are
written in the newest one: what were attributes of Clip, Squeeze, Slice, ... become inputs.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from converters.formats.contents import contents
from converters.graphs.building import Building, Untranslatable
from opom_jax.errors import InputError, first_line
from opom_jax.networks.graph import Graph
from opom_jax.networks.operators import OPERATORS

# operator -> attributes that newer versions take as inputs, in their order
_INPUTS: dict[str, tuple[str, ...]] = {
    "Clip": ("min", "max"),
    "Squeeze": ("axes",),
    "Unsqueeze": ("axes",),
    "Split": ("split",),
    "Slice": ("starts", "ends", "axes"),
    "Pad": ("pads", "value"),
    "Upsample": ("scales",),
}
_RENAMED = {"Upsample": "Resize"}
_FIRST_INPUTS = {"Resize": 2}  # before version 11: (x, scales); since then (x, roi, scales, sizes)


def read(
    path: os.PathLike | str, size: tuple[int, int] | None = None, output: str | None = None
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph of a recogniser and its weights.

    Args:
      path: the .onnx file, weights inside.
      size: height and width of the image, needed where the file leaves them open.
      output: name of the embedding; the first output if not given.

    Returns:
      (graph, {name: f32 array}).

    Raises:
      InputError: unreadable, damaged, weights in other files, an operator that is not known (with
        its node), more inputs than an image.
    """
    path = Path(path)
    content = contents(path)
    try:
        model = onnx.load_model_from_string(content)  # protobuf alone, whatever the file is called
        if not model.HasField("graph"):
            raise ValueError("no model")
    except Exception as error:  # protobuf has errors of its own
        raise InputError(f"{path} is no ONNX file or damaged; export it again.") from error
    try:
        return _translate(model.graph, size, output)
    except Untranslatable as error:
        raise InputError(f"{path} {error}.") from error
    except Exception as error:  # damaged fields can raise nearly anything, far from the damage
        reason = first_line(error)
        raise InputError(f"{path} holds no whole network ({reason}); export it again.") from error


def _translate(source: onnx.GraphProto, size, output: str | None):
    graph = Building()
    for tensor in source.initializer:
        graph.entered(tensor.name, _array(tensor))
    inputs = [value for value in source.input if value.name not in graph.arrays]
    if len(inputs) != 1:
        raise Untranslatable(f"takes {len(inputs)} inputs, not one image")
    outputs = [value.name for value in source.output]
    if output is not None and output not in outputs:
        raise Untranslatable(f"has no output {output!r}", f"choose from {outputs}")
    for node in source.node:
        _add(graph, node)
    return graph.finish(inputs[0].name, output or outputs[0], _shape(inputs[0], size))


def _add(graph: Building, node: onnx.NodeProto) -> None:
    name = node.name or (node.output[0] if node.output else "")
    if node.domain not in ("", "ai.onnx"):
        raise Untranslatable(f"has in node {name!r} an operator of {node.domain!r}")
    given = {attribute.name: _attribute(attribute, name) for attribute in node.attribute}
    inputs, outputs = list(node.input), list(node.output)
    if node.op_type == "Constant":
        graph.constant(outputs[0], _constant(given, name))
        return
    operator = _RENAMED.get(node.op_type, node.op_type)
    if operator not in OPERATORS:
        raise Untranslatable(f"has in node {name!r} the operator {operator!r}, not known here")
    moved = [key for key in _INPUTS.get(node.op_type, ()) if key in given]
    for key in _INPUTS.get(node.op_type, ()):
        if moved:
            value = given.pop(key, None)
            inputs.append("" if value is None else graph.constant(f"{name}.{key}", value))
    if operator == "Resize" and len(inputs) == _FIRST_INPUTS[operator]:
        inputs.insert(1, "")
    if operator == "Split" and len(inputs) == 1:
        given["parts"] = len(outputs)
    if operator == "Cast":
        given["to"] = onnx.helper.tensor_dtype_to_np_dtype(given["to"]).name
    if "value" in given:  # of ConstantOfShape
        given["value"] = tuple(given["value"].ravel()[:1].tolist())
    graph.add(operator, name, inputs, outputs, **given)


def _attribute(attribute: onnx.AttributeProto, node: str) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return _array(value)
    if isinstance(value, onnx.GraphProto | onnx.SparseTensorProto):
        raise Untranslatable(f"has in node {node!r} a graph or sparse array as {attribute.name!r}")
    return tuple(value) if not isinstance(value, int | float) else value


def _constant(given: dict[str, Any], node: str) -> np.ndarray:
    for key, dtype in {
        "value": None,
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }.items():
        if key in given:
            return np.asarray(given[key], dtype)
    raise Untranslatable(f"has in node {node!r} a constant that is no array of numbers")


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise Untranslatable("keeps its weights in other files", "save it with them inside")
    if any(side < 0 for side in tensor.dims):
        raise Untranslatable(f"has an array {tensor.name!r} of negative sides")
    return numpy_helper.to_array(tensor)


def _shape(value: onnx.ValueInfoProto, size) -> tuple[int, int, int, int]:
    sides = [
        d.dim_value if d.HasField("dim_value") else 0 for d in value.type.tensor_type.shape.dim
    ]
    if len(sides) != 4 or sides[0] > 1 or 3 not in sides[1:2] + sides[3:]:
        raise Untranslatable(f"takes {sides}, not images (1, 3, H, W) or (1, H, W, 3)")
    first = sides[1] == 3
    stated = sides[2:] if first else sides[1:3]
    height, width = (own or given for own, given in zip(stated, size or (0, 0), strict=True))
    if min(height, width) <= 0:
        raise Untranslatable("leaves the size of the image open", "give it")
    return (1, 3, height, width) if first else (1, height, width, 3)
