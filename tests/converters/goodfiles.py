"""One small file of every kind that the readers know, each with what tempts damage."""

import json
import shutil
import struct
import zipfile
from pathlib import Path

import h5py
import jax
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from converters.formats import mxnet_file
from opom_jax.networks import recognizer
from opom_jax.networks.graph import Graph, Node, paths

SIDE = 8
_DRAW = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return _DRAW.normal(size=shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def torch_file(path: Path, zipped: bool) -> Path:
    torch = pytest.importorskip("torch")
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2).bfloat16()}
    state = {"epoch": 3, "net": tensors | {"c": torch.ones(3, dtype=torch.bool)}}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return path


def params_file(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """MXNet's second generation, float32."""
    parts = [mxnet_file.HEAD, struct.pack("<Q", len(arrays))]
    for array in arrays.values():
        parts.append(struct.pack("<Iii", 0xF993FAC9, 0, array.ndim))
        parts += [struct.pack(f"<{array.ndim}q3i", *array.shape, 1, 0, 0), array.tobytes()]
    parts.append(struct.pack("<Q", len(arrays)))
    parts += [struct.pack("<Q", len(name)) + name.encode() for name in arrays]
    path.write_bytes(b"".join(parts))
    return path


# (operator, name, attributes, inputs that come from no node)
_SYMBOL = (
    ("_mul_scalar", "scaled", {"scalar": "0.0078125"}, ()),
    ("Convolution", "conv", {"kernel": "(3, 3)", "num_filter": "4", "pad": "(1, 1)"}, ("weight",)),
    ("BatchNorm", "bn", {"eps": "2e-05", "fix_gamma": "True"}, ("gamma", "beta", "mean", "var")),
    ("LeakyReLU", "act", {"act_type": "prelu"}, ("slope",)),
    ("Pooling", "pool", {"kernel": "(2, 2)", "pool_type": "avg", "stride": "(2, 2)"}, ()),
    ("SliceChannel", "parts", {"num_outputs": "2", "axis": "1"}, ()),
    ("UpSampling", "up", {"sample_type": "nearest", "scale": "2"}, ()),
    ("Reshape", "row", {"shape": "(0, -1)"}, ()),
    ("FullyConnected", "fc", {"num_hidden": "5"}, ("dense", "bias")),
)


def mxnet_files(folder: Path) -> Path:
    """good.params and good-symbol.json."""
    arrays = {"weight": normal(4, 3, 3, 3), "slope": normal(4)}
    arrays |= {"dense": normal(5, 2 * SIDE * SIDE), "bias": normal(5)}
    arrays |= {name: abs(normal(4)) + 0.5 for name in ("gamma", "beta", "mean", "var")}
    named = {
        f"{'aux' if n in ('mean', 'var') else 'arg'}:{n}": a.astype(np.float32)
        for n, a in arrays.items()
    }
    params_file(folder / "good.params", named)
    nodes, last = [{"op": "null", "name": "data", "inputs": []}], 0
    for operator, name, attributes, own in _SYMBOL:
        nodes += [{"op": "null", "name": weight, "inputs": []} for weight in own]
        inputs = [[last, 0, 0], *([len(nodes) - len(own) + k, 0, 0] for k in range(len(own)))]
        last = len(nodes)
        nodes.append({"op": operator, "name": name, "attrs": attributes, "inputs": inputs})
    symbol = folder / "good-symbol.json"
    symbol.write_text(json.dumps({"nodes": nodes, "heads": [[last, 0, 0]]}))
    return symbol


_NODES = (
    ("Sub", ("x", "mean"), "s", {}),
    ("Pad", ("s", "pads"), "p", {"mode": "reflect"}),
    ("Conv", ("p", "kernel"), "c", {"strides": [1, 1], "group": 1}),
    ("BatchNormalization", ("c", "gamma", "gamma", "gamma", "gamma"), "n", {"epsilon": 1e-3}),
    ("PRelu", ("n", "slope"), "r", {}),
    ("AveragePool", ("r",), "m", {"kernel_shape": [2, 2], "pads": [0] * 4, "strides": [2, 2]}),
    ("Split", ("m", "halves"), "h", {"axis": 1}),
    ("Resize", ("h", "", "twice"), "u", {"mode": "nearest"}),
    ("Shape", ("u",), "shape", {}),
    ("Gather", ("shape", "first"), "count", {"axis": 0}),
    ("Unsqueeze", ("count", "axes"), "counts", {}),
    ("Concat", ("counts", "rest"), "to", {"axis": 0}),
    ("Reshape", ("u", "to"), "f", {}),
    ("ConstantOfShape", ("rows",), "zeros", {}),
    ("Expand", ("zeros", "rows"), "e", {}),
    ("Gemm", ("f", "dense", "e"), "y", {"transB": 1}),
)


def _arrays() -> dict[str, np.ndarray]:
    return {
        "mean": np.full((1, 3, 1, 1), 0.5, np.float32),
        "pads": integers(0, 0, 1, 1, 0, 0, 1, 1),
        "kernel": normal(4, 3, 3, 3),
        "gamma": abs(normal(4)) + np.float32(0.5),
        "slope": normal(4, 1, 1),
        "halves": integers(2, 2),
        "twice": integers(1, 1, 2, 2),
        "first": np.int64(0),
        "axes": integers(0),
        "rest": integers(-1),
        "rows": integers(1, 5),
        "dense": normal(5, 2 * SIDE * SIDE),
    }


def onnx_file(path: Path) -> Path:
    nodes = [
        helper.make_node(operator, inputs, [output, "other"][: 1 + (operator == "Split")], **given)
        for operator, inputs, output, given in _NODES
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in _arrays().items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def network_folder(folder: Path) -> Path:
    """The stored form of the same graph, in "net"; a copy of its card."""
    arrays = _arrays()
    weights = {name: a for name, a in arrays.items() if a.dtype == np.float32}
    constants = tuple(
        (name, a.dtype.name, a.shape, tuple(int(n) for n in a.ravel()))
        for name, a in arrays.items()
        if name not in weights
    )
    nodes = tuple(
        Node(
            operator,
            f"node {output}",
            tuple(inputs),
            (output, "other")[: 1 + (operator == "Split")],
            tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in given.items()),
        )
        for operator, inputs, output, given in _NODES
    )
    shapes = tuple((name, a.shape) for name, a in weights.items())
    graph = Graph(nodes, "x", "y", (1, 3, SIDE, SIDE), constants, shapes)
    where = paths(graph)
    named = {where[name]: array for name, array in weights.items()}
    with jax.numpy_rank_promotion("allow"):  # as users have it
        spec = recognizer.graph_spec(graph)
    recognizer.save(folder / "net", spec, named, {"file": "x"}, half=True)
    return Path(shutil.copy(folder / "net" / "card.json", folder / "good.json"))


def h5_file(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["conv/conv/kernel:0"] = normal(3, 3, 3, 4)
        file.create_dataset("conv/conv/bias:0", data=normal(40), chunks=(10,), compression="gzip")
        file["names"] = np.array([b"a", b"bc"])
        file.attrs["layer_names"] = [b"conv"]
    return path


def keras_file(path: Path) -> Path:
    inner = h5_file(path.with_suffix(".inner")).read_bytes()
    path.with_suffix(".inner").unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", inner)
    return path


def safetensors_file(path: Path) -> Path:
    save_file({"a": normal(2, 3), "b.c": integers(1, 2), "e": normal(0, 3)}, path)
    return path
