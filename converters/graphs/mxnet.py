"""MXNet: a symbol file (`-symbol.json`) and its parameters (`.params`) -> a graph network.

Each of MXNet's operators is written with ONNX's, which `networks/operators.py` runs. Defaults are
MXNet's: eps 1e-3 and gamma fixed at 1 in BatchNorm, padding counted in mean pooling.
"""

import ast
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.formats import mxnet_file
from converters.formats.contents import contents
from converters.graphs.building import Building, Untranslatable, chosen
from opom_jax.errors import InputError, first_line
from opom_jax.networks.graph import Graph

_MAX_TEXT, _MAX_PARTS = 1000, 1000


class _Node:
    """One node of a symbol file: its name, attributes, inputs by name."""

    def __init__(self, name: str, operator: str, attributes: Mapping[str, str], inputs: list[str]):
        self.name, self.operator, self.inputs = name, operator, inputs
        self._given = attributes

    def value(self, key: str, default: Any = None) -> Any:
        """An attribute: number, tuple, bool or text."""
        text = self._given.get(key)
        if text is None:
            return default
        if not isinstance(text, str) or len(text) > _MAX_TEXT:
            raise Untranslatable(f"has no short text as {key} in node {self.name!r}")
        try:
            return ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return text  # those of a text that nests too deeply, too

    def pair(self, key: str, default: int) -> tuple[int, int]:
        """An attribute of both axes; MXNet writes () for its default."""
        found = self.value(key) or (default, default)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise Untranslatable(f"has {key}={found} in node {self.name!r}, not of two axes")
        return found


def _convolution(graph: Building, node: _Node) -> str:
    if node.value("layout", "NCHW") not in ("NCHW", None, "None"):
        raise Untranslatable(f"has layout {node.value('layout')!r} in node {node.name!r}")
    (top, left) = node.pair("pad", 0)
    return graph.add(
        "Conv",
        node.name,
        node.inputs,
        strides=node.pair("stride", 1),
        dilations=node.pair("dilate", 1),
        pads=(top, left, top, left),
        group=node.value("num_group", 1),
    )


def _fully_connected(graph: Building, node: _Node) -> str:
    x, *weights = node.inputs
    if node.value("flatten", True):
        x = graph.add("Flatten", f"{node.name}_flat", [x])
    return graph.add("Gemm", node.name, [x, *weights], transB=1)


def _batch_norm(graph: Building, node: _Node) -> str:
    x, gamma, beta, mean, variance = node.inputs
    if node.value("axis", 1) != 1:
        raise Untranslatable(f"has axis={node.value('axis')} in node {node.name!r}")
    if node.value("fix_gamma", True):
        ones = np.ones_like(_array(graph, node, gamma))
        gamma = graph.constant(f"{node.name}_fixed_gamma", ones)
    eps = float(node.value("eps", 1e-3))
    inputs = [x, gamma, beta, mean, variance]
    return graph.add("BatchNormalization", node.name, inputs, epsilon=eps)


_ACTIVATIONS = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softrelu": "Softplus",
    "softsign": "Softsign",
}


def _activation(graph: Building, node: _Node) -> str:
    kind = chosen(_ACTIVATIONS, str(node.value("act_type")), "the activation")
    return graph.add(kind, node.name, node.inputs)


def _leaky(graph: Building, node: _Node) -> str:
    kind, slope = str(node.value("act_type", "leaky")), float(node.value("slope", 0.25))
    if kind == "prelu":
        x, own = node.inputs
        array = _array(graph, node, own)
        shaped = graph.constant(f"{own}_of_channels", array.reshape(-1, 1, 1))
        return graph.add("PRelu", node.name, [x, shaped])
    operators = {"leaky": "LeakyRelu", "elu": "Elu", "selu": "Selu", "gelu": "Gelu"}
    alpha = slope if kind in ("leaky", "elu") else None
    return graph.add(chosen(operators, kind, "the activation"), node.name, node.inputs, alpha=alpha)


def _pooling(graph: Building, node: _Node) -> str:
    kind = str(node.value("pool_type", "max"))
    if kind not in ("max", "avg"):
        raise Untranslatable(f"has pool_type={kind!r} in node {node.name!r}")
    if node.value("global_pool", False):
        operator = "GlobalMaxPool" if kind == "max" else "GlobalAveragePool"
        return graph.add(operator, node.name, node.inputs)
    convention = node.value("pooling_convention", "valid")
    if convention not in ("valid", "full"):
        raise Untranslatable(f"has pooling_convention={convention!r} in node {node.name!r}")
    top, left = node.pair("pad", 0)
    counted = int(bool(node.value("count_include_pad", True))) if kind == "avg" else None
    return graph.add(
        "MaxPool" if kind == "max" else "AveragePool",
        node.name,
        node.inputs,
        kernel_shape=node.pair("kernel", 1),
        strides=node.pair("stride", 1),
        pads=(top, left, top, left),
        ceil_mode=int(convention == "full"),
        count_include_pad=counted,
    )


def _reshape(graph: Building, node: _Node) -> str:
    shape = node.value("shape", ())
    if not shape or min(shape) < -1 or node.value("reverse", False):
        raise Untranslatable(f"has shape={shape} in node {node.name!r}: codes below -1 or none")
    wanted = graph.constant(f"{node.name}_shape", np.array(shape, np.int64))
    return graph.add("Reshape", node.name, [node.inputs[0], wanted])


def _split(graph: Building, node: _Node) -> str:
    parts, axis = int(node.value("num_outputs")), int(node.value("axis", 1))
    if not 0 < parts <= _MAX_PARTS:
        raise Untranslatable(f"has num_outputs={parts} in node {node.name!r}")
    outputs = [f"{node.name}:{k}" if k else node.name for k in range(parts)]
    if not node.value("squeeze_axis", False):
        return graph.add("Split", node.name, node.inputs, outputs, axis=axis, parts=parts)
    whole = [f"{name}_whole" for name in outputs]
    graph.add("Split", f"{node.name}_split", node.inputs, whole, axis=axis, parts=parts)
    axes = graph.constant(f"{node.name}_axes", np.array([axis], np.int64))
    for part, name in zip(whole, outputs, strict=True):
        graph.add("Squeeze", name, [part, axes])
    return outputs[0]


def _slice_axis(graph: Building, node: _Node) -> str:
    end = node.value("end")
    bounds = node.value("begin", 0), 2**31 - 1 if end in (None, "None") else end, node.value("axis")
    names = [
        graph.constant(f"{node.name}_{what}", np.array([number], np.int64))
        for what, number in zip(("begin", "end", "axis"), bounds, strict=True)
    ]
    return graph.add("Slice", node.name, [node.inputs[0], *names])


def _scalar(operator: str, *, reverse: bool = False) -> Callable[[Building, _Node], str]:
    def translate(graph: Building, node: _Node) -> str:
        number = np.float32(node.value("scalar"))
        pair = [node.inputs[0], graph.constant(f"{node.name}_scalar", number)]
        return graph.add(operator, node.name, pair[::-1] if reverse else pair)

    return translate


def _same(operator: str, **fixed) -> Callable[[Building, _Node], str]:
    def translate(graph: Building, node: _Node) -> str:
        return graph.add(operator, node.name, node.inputs, **fixed)

    return translate


def _first(operator: str, **renamed: str) -> Callable[[Building, _Node], str]:
    """The first input alone, attributes under ONNX's names."""

    def translate(graph: Building, node: _Node) -> str:
        given = {theirs: node.value(ours) for theirs, ours in renamed.items()}
        return graph.add(operator, node.name, node.inputs[:1], **given)

    return translate


def _concat(graph: Building, node: _Node) -> str:
    return graph.add("Concat", node.name, node.inputs, axis=int(node.value("dim", 1)))


def _clip(graph: Building, node: _Node) -> str:
    bounds = [
        graph.constant(f"{node.name}_{key}", np.float32(node.value(key)))
        for key in ("a_min", "a_max")
    ]
    return graph.add("Clip", node.name, [node.inputs[0], *bounds])


def _l2_normalization(graph: Building, node: _Node) -> str:
    mode = node.value("mode", "instance")
    axis = chosen({"instance": 1, "channel": 1}, str(mode), f"in node {node.name!r} the mode")
    x = node.inputs[0]
    if mode == "instance":
        x = graph.add("Flatten", f"{node.name}_flat", [x])
    eps = float(node.value("eps", 1e-10))
    return graph.add("LpNormalization", node.name, [x], axis=axis, epsilon=eps)


def _up_sampling(graph: Building, node: _Node) -> str:
    if node.value("sample_type") != "nearest" or len(node.inputs) != 1:
        raise Untranslatable(
            f"has an upsampling in node {node.name!r} that is not 'nearest' of one"
        )
    scale = float(node.value("scale"))
    scales = graph.constant(f"{node.name}_scales", np.array([1, 1, scale, scale]).astype(np.int64))
    return graph.add("Resize", node.name, [node.inputs[0], "", scales], mode="nearest")


def _crop(graph: Building, node: _Node) -> str:
    if len(node.inputs) != 2 or node.value("center_crop", False):
        raise Untranslatable(f"has a crop in node {node.name!r} that is not of one like another")
    return graph.add("CropLike", node.name, node.inputs, offset=node.value("offset", (0, 0)))


def _mean(graph: Building, node: _Node) -> str:
    axes = node.value("axis")
    axes = (axes,) if isinstance(axes, int) else axes
    keep = int(bool(node.value("keepdims", False)))
    return graph.add("ReduceMean", node.name, node.inputs, axes=axes, keepdims=keep)


def _softmax_of_channels(graph: Building, node: _Node) -> str:
    axis = 1 if node.value("mode", "instance") == "channel" else -1
    return graph.add("Softmax", node.name, node.inputs[:1], axis=axis)


OPERATORS: dict[str, Callable[[Building, _Node], str]] = {
    "Convolution": _convolution,
    "FullyConnected": _fully_connected,
    "BatchNorm": _batch_norm,
    "Activation": _activation,
    "LeakyReLU": _leaky,
    "Pooling": _pooling,
    "Reshape": _reshape,
    "Flatten": _first("Flatten"),
    "Concat": _concat,
    "SliceChannel": _split,
    "slice_axis": _slice_axis,
    "clip": _clip,
    "mean": _mean,
    "transpose": _first("Transpose", perm="axes"),
    "L2Normalization": _l2_normalization,
    "UpSampling": _up_sampling,
    "Crop": _crop,
    "SoftmaxActivation": _softmax_of_channels,
    "SoftmaxOutput": _first("Softmax"),
    "softmax": _first("Softmax", axis="axis"),
    **dict.fromkeys(("Dropout", "identity", "_copy", "BlockGrad"), _first("Identity")),
    **{name: _same("Add") for name in ("elemwise_add", "_plus", "_Plus", "broadcast_add")},
    **{name: _same("Sub") for name in ("elemwise_sub", "_minus", "broadcast_sub")},
    **{name: _same("Mul") for name in ("elemwise_mul", "_mul", "broadcast_mul")},
    **{name: _same("Div") for name in ("elemwise_div", "_div", "broadcast_div")},
    **{name: _same("Sum") for name in ("add_n", "ElementWiseSum")},
    **{
        kind: _same(kind.capitalize()) for kind in ("relu", "sigmoid", "tanh", "exp", "sqrt", "abs")
    },
    "_plus_scalar": _scalar("Add"),
    "_minus_scalar": _scalar("Sub"),
    "_rminus_scalar": _scalar("Sub", reverse=True),
    "_mul_scalar": _scalar("Mul"),
    "_div_scalar": _scalar("Div"),
    "_rdiv_scalar": _scalar("Div", reverse=True),
    "_power_scalar": _scalar("Pow"),
    "_maximum_scalar": _scalar("Max"),
    "_minimum_scalar": _scalar("Min"),
}


def read(
    symbol: os.PathLike | str,
    parameters: os.PathLike | str,
    size: tuple[int, int] = (112, 112),
    output: str | None = None,
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph of a recogniser and its weights.

    Args:
      symbol: the `-symbol.json` file.
      parameters: the `.params` file.
      size: height and width of the image, which symbol files do not state.
      output: name of the node that makes the embedding; the first head if not given.

    Returns:
      (graph, {name: f32 array}).

    Raises:
      InputError: unreadable files, an operator that is not known (with its node), parameters that
        are missing or have another use.
    """
    symbol = Path(symbol)
    groups = mxnet_file.read(parameters)
    content = contents(symbol, what="symbol file of MXNet, NAME-symbol.json")
    try:
        stored = json.loads(content)
        nodes, heads = _nodes(stored), [int(head[0]) for head in stored["heads"]]
    except Exception as error:  # whatever stands where something else is expected
        raise InputError(f"{symbol} is no symbol file of MXNet; give NAME-symbol.json.") from error
    graph = Building()
    try:
        for group in groups.values():
            for name, array in group.items():
                graph.entered(name, array)
        needed = _needed(nodes, output or nodes[heads[0]].name)
        images = [n.name for n in needed if n.operator == "null" and n.name not in graph.arrays]
        if not images:
            raise Untranslatable("takes no image")
        if lacking := images[1:]:
            names = ", ".join(map(repr, lacking[:3]))
            raise Untranslatable(
                f"and {Path(parameters).name} are of different networks or damaged (of the arrays "
                f"that it needs, {len(lacking)} are not there: {names})",
                "give both files of one network",
            )
        for node in needed:
            if node.operator != "null":
                chosen(OPERATORS, node.operator, f"in node {node.name!r} the operator")(graph, node)
        return graph.finish(images[0], needed[-1].name, (1, 3, *size))
    except Untranslatable as error:
        raise InputError(f"{symbol} {error}.") from error
    except Exception as error:  # damaged attributes can raise nearly anything
        reason = first_line(error)
        raise InputError(f"{symbol} holds no whole network ({reason}); export it again.") from error


def _needed(nodes: list[_Node], output: str) -> list[_Node]:
    """The nodes on which one depends, and that one last."""
    by_name = {node.name: node for node in nodes}
    if output not in by_name:
        raise Untranslatable(f"has no node {output!r}")
    wanted = {output}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(name.partition(":")[0] for name in node.inputs)
    return [n for n in nodes if n.name in wanted and n.name != output] + [by_name[output]]


def _nodes(stored: dict) -> list[_Node]:
    nodes = stored["nodes"]
    names = [str(node["name"]) for node in nodes]
    found = []
    for node in nodes:
        given = node.get("attrs") or node.get("attr") or node.get("param") or {}
        inputs = [
            names[int(source[0])] + (f":{int(source[1])}" if int(source[1]) else "")
            for source in node.get("inputs", [])
        ]
        found.append(_Node(str(node["name"]), str(node["op"]), dict(given), inputs))
    return found


def _array(graph: Building, node: _Node, name: str) -> np.ndarray:
    if name not in graph.arrays:
        raise Untranslatable(f"needs the array {name!r} of node {node.name!r}, which is missing")
    return graph.arrays[name]
