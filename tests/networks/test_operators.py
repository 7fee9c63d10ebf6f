"""Operators of graph networks against the reference implementation of the ONNX package."""

import jax
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from converters.graphs import onnx_file
from opom_jax.networks.graph import run
from opom_jax.networks.operators import OPERATORS, Value

SIDE = 8
NUMBERS = np.random.default_rng(0)


def normal(*shape):
    return NUMBERS.normal(size=shape).astype(np.float32)


def integers(*values):
    return np.array(values, np.int64)


# name -> (operator, attributes, inputs after the image); the image is (1, 3, 8, 8)
CASES = {
    "conv": ("Conv", {"pads": [1, 1, 1, 1]}, [normal(4, 3, 3, 3), normal(4)]),
    "conv stride 2": ("Conv", {"pads": [1] * 4, "strides": [2, 2]}, [normal(4, 3, 3, 3)]),
    "conv uneven": ("Conv", {"pads": [0, 1, 2, 1], "strides": [2, 1]}, [normal(4, 3, 3, 2)]),
    "conv dilated": ("Conv", {"dilations": [2, 2]}, [normal(4, 3, 3, 3)]),
    "conv groups": ("Conv", {"group": 3}, [normal(6, 1, 3, 3)]),
    "conv depthwise": ("Conv", {"group": 3, "pads": [1] * 4}, [normal(3, 1, 3, 3)]),
    "conv same": ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [normal(4, 3, 3, 3)]),
    "batch norm": (
        "BatchNormalization",
        {"epsilon": 1e-3},
        [normal(3), normal(3), normal(3), abs(normal(3)) + 0.5],
    ),
    "max pool": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}, []),
    "max pool ceil": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, []),
    "mean pool": ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}, []),
    "mean pool with zeros": (
        "AveragePool",
        {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1},
        [],
    ),
    "global mean": ("GlobalAveragePool", {}, []),
    "global max": ("GlobalMaxPool", {}, []),
    "prelu": ("PRelu", {}, [abs(normal(3, 1, 1))]),
    "leaky": ("LeakyRelu", {"alpha": 0.3}, []),
    "elu": ("Elu", {"alpha": 0.7}, []),
    "hard sigmoid": ("HardSigmoid", {}, []),
    "hard swish": ("HardSwish", {}, []),
    "clip": ("Clip", {}, [np.float32(0), np.float32(0.6)]),
    "clip above": ("Clip", {}, [np.float32(0)]),
    "add": ("Add", {}, [normal(3, 1, 1)]),
    "sub": ("Sub", {}, [normal(1, 3, 8, 8)]),
    "mul by a number": ("Mul", {}, [np.float32(0.1)]),
    "mul by a row": ("Mul", {}, [normal(8)]),
    "div": ("Div", {}, [abs(normal(3, 1, 1)) + 1]),
    "pow": ("Pow", {}, [np.float32(2)]),
    "max": ("Max", {}, [normal(3, 1, 1), normal(8)]),
    "min": ("Min", {}, [normal(3, 1, 1), normal(8)]),
    "sum": ("Sum", {}, [normal(3, 1, 1), normal(8)]),
    "cast": ("Cast", {"to": TensorProto.INT32}, []),
    "squeeze": ("Squeeze", {}, [integers(0)]),
    "expand": ("Expand", {}, [integers(2, 1, 8, 8)]),
    "reshape": ("Reshape", {}, [integers(0, -1)]),
    "flatten": ("Flatten", {}, []),
    "transpose": ("Transpose", {"perm": [0, 2, 3, 1]}, []),
    "unsqueeze": ("Unsqueeze", {}, [integers(0)]),
    "slice": ("Slice", {}, [integers(1, 2), integers(3, 9), integers(1, 2), integers(1, 2)]),
    "slice back": ("Slice", {}, [integers(-1), integers(-9), integers(3), integers(-1)]),
    "gather": ("Gather", {"axis": 1}, [integers(2, 0)]),
    "pad": ("Pad", {}, [integers(0, 0, 1, 2, 0, 0, 0, 1), np.float32(0.5)]),
    "pad edge": ("Pad", {"mode": "edge"}, [integers(0, 0, 1, 2, 0, 0, 0, 1)]),
    "concat": ("Concat", {"axis": 1}, [normal(1, 2, 8, 8)]),
    "mean of axes": ("ReduceMean", {"keepdims": 1}, [integers(2, 3)]),
    "mean of channels": ("ReduceMean", {"keepdims": 0}, [integers(1)]),
    "sum of all": ("ReduceSum", {}, []),
    **{
        f"{name} {keep}": (name, {"keepdims": keep}, [integers(1, 3)])
        for name in ("ReduceL2", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare")
        for keep in (0, 1)
    },
    "softmax": ("Softmax", {"axis": 1}, []),
    "unit length": ("LpNormalization", {"axis": 1, "p": 2}, []),
    "layer norm": ("LayerNormalization", {"epsilon": 1e-3}, [normal(8), normal(8)]),
    "instance norm": ("InstanceNormalization", {}, [normal(3), normal(3)]),
    "matmul": ("MatMul", {}, [normal(8, 5)]),
    "twice as large": (
        "Resize",
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
        ["", np.array([1, 1, 2, 2], np.float32)],
    ),
    **{
        name: (name, {}, [])
        for name in ("Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "Erf", "Exp")
    },
    **{name: (name, {}, []) for name in ("Neg", "Abs", "Floor", "Ceil", "Identity", "Gelu")},
}

# name -> nodes (operator, inputs, outputs, attributes); arrays of their names are in ARRAYS
CHAINS = {
    "sqrt": [("Abs", "x", "a", {}), ("Sqrt", "a", "y", {})],
    "log": [("Exp", "x", "a", {}), ("Log", "a", "y", {})],
    "reciprocal": [("Exp", "x", "a", {}), ("Reciprocal", "a", "y", {})],
    "less": [("Less", "x half", "a", {}), ("Where", "a x row", "y", {})],
    "greater": [("Greater", "x half", "a", {}), ("Where", "a x row", "y", {})],
    "equal": [("Floor", "x", "a", {}), ("Equal", "a one", "b", {}), ("Where", "b x row", "y", {})],
    "split": [("Split", "x sizes", "a b", {"axis": 2}), ("Exp", "b", "y", {})],
    "filled": [
        ("Shape", "x", "s", {}),
        (
            "ConstantOfShape",
            "s",
            "a",
            {"value": numpy_helper.from_array(np.array([2], np.float32))},
        ),
        ("Mul", "x a", "y", {}),
    ],
    "gemm": [
        ("Flatten", "x", "a", {}),
        ("Gemm", "a dense row", "y", {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ],
    "convolution after a matrix": [("MatMul", "x square", "a", {}), ("Conv", "a kernel", "y", {})],
}
ARRAYS = {
    "half": np.float32(0.5),
    "one": np.float32(1),
    "row": normal(8),
    "sizes": integers(3, 5),
    "dense": normal(8, 3 * SIDE * SIDE),
    "square": normal(8, 8),
    "kernel": normal(4, 3, 3, 3),
}


def model(nodes, arrays, path, shape=(1, 3, SIDE, SIDE)):
    """An ONNX file of nodes from "x" to "y"."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(made, path)
    return made


@pytest.fixture
def image():
    return np.random.default_rng(1).normal(size=(SIDE, SIDE, 3)).astype(np.float32)


def check(nodes, arrays, image, path, shape=(1, 3, SIDE, SIDE)):
    """Nodes from "x" to "y" give what the reference gives."""
    made = model(nodes, arrays, path, shape)
    given = image[None] if shape[-1] == 3 else image.transpose(2, 0, 1)[None]
    (wanted,) = ReferenceEvaluator(made).run(None, {"x": given})
    graph, weights = onnx_file.read(path)
    found = jax.jit(lambda w, x: run(graph, w, x))(weights, image)
    np.testing.assert_allclose(found, wanted.reshape(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("operator, attributes, inputs", CASES.values(), ids=CASES)
def test_reference(operator, attributes, inputs, image, tmp_path):
    names = [f"input{k}" if len(np.shape(a)) or a != "" else "" for k, a in enumerate(inputs)]
    arrays = {name: a for name, a in zip(names, inputs, strict=True) if name}
    nodes = [helper.make_node(operator, ["x", *names], ["y"], name="it", **attributes)]
    check(nodes, arrays, image, tmp_path / "it.onnx")


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_reference_of_chains(chain, image, tmp_path):
    nodes = [helper.make_node(op, a.split(), b.split(), **given) for op, a, b, given in chain]
    check(nodes, ARRAYS, image, tmp_path / "it.onnx")


def test_shapes_are_computed_while_tracing(image, tmp_path):
    """The usual way of exporters to flatten: Shape, Gather, Unsqueeze, Concat, Reshape."""
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"]),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "zeros"], ["m"]),
        helper.make_node("Concat", ["m", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["c", "to"], ["y"]),
    ]
    arrays = {"kernel": normal(4, 3, 3, 3), "zero": np.int64(0), "zeros": integers(0)}
    arrays |= {"rest": integers(-1)}
    check(nodes, arrays, image, tmp_path / "it.onnx", ("n", 3, SIDE, SIDE))


def test_channels_last_graphs(image, tmp_path):
    """As Keras exports them."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "kernel"], ["y"]),
    ]
    arrays = {"kernel": normal(4, 3, 3, 3)}
    check(nodes, arrays, image, tmp_path / "it.onnx", (1, SIDE, SIDE, 3))


def test_a_crop_like_another_image():
    """MXNet's; ONNX has no such operator."""
    image, like = normal(1, 8, 8, 3), normal(1, 4, 5, 2)
    given = {"offset": (1, 2)}
    found = OPERATORS["CropLike"](given, Value(image, True), Value(like.transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(found.plain, image[:, 1:5, 2:7].transpose(0, 3, 1, 2))


def test_every_operator_is_tried():
    tried = {operator for operator, *_ in (*CASES.values(), *sum(CHAINS.values(), []))}
    assert set(OPERATORS) - tried == {"CropLike", "Dropout"}  # above; the same as Identity
