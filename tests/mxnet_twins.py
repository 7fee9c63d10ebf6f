"""The paper's targets as pairs of files that MXNet would save, from the published layer tables.

Tables keep their depth; every width is divided. MXNet's own names and defaults are used: eps 1e-3
is not written, gamma is stored where it is fixed too, the classifier comes after the embedding.
"""

import csv
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.recipe import weights

TABLES = {
    "mobilenet": "m1_webface_soft.tsv",
    "se_resnet_50": "ser50_webface_soft.tsv",
    "resnet_50": "ser50_webface_soft.tsv",
    "inception_resnet": "i1_webface_soft.tsv",
}
FACTORS = [0.17] * 10 + [0.1] * 20 + [0.2] * 9 + [1.0]  # of mulscalar1, ... of the Inception-ResNet
_MAGIC, _V2 = 0x112, 0xF993FAC9

Row = dict[str, Any]


def numbers(text: str) -> tuple[int, ...]:
    """Of "1x3x3x1"."""
    return tuple(int(n) for n in text.split("x"))


def read_table(targets: Path, network: str) -> list[Row]:
    """The nodes of a published graph in order; the ResNet is the SE-ResNet without its gates."""
    with open(targets / TABLES[network], newline="") as file:
        rows: list[Row] = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        row["inputs"] = row["inputs"].split(",")
        row["shape"] = row["output_shape_nhwc"] and numbers(row["output_shape_nhwc"])
        row |= dict(pair.split("=") for pair in (row["attributes"] or "").split())
    if network != "resnet_50":
        return rows
    gated = {row["name"]: row["inputs"][0] for row in rows if "broadcast_mul" in row["name"]}
    for row in rows:
        row["inputs"] = [gated.get(name, name) for name in row["inputs"]]
    return [row for row in rows if row["name"] not in gated and "_se_" not in row["name"]]


class Twin(NamedTuple):
    """A network as MXNet has it.

    Attributes:
      symbol: of the `-symbol.json`.
      keys: [name with its group, shape, kind for the recipe] of every array.
    """

    symbol: dict
    keys: list[tuple[str, tuple[int, ...], str]]


def twin(rows: list[Row], *, divisor: int = 1, side: int | None = None, embedding: int = 512):
    """A table as a Twin.

    Args:
      rows: of `read_table`.
      divisor: of every width but the image's.
      side: of the last feature map; the published one if not given.
      embedding: its length.
    """
    nodes, keys, where = [], [], {}
    shapes = {row["name"]: row["shape"] for row in rows}

    def place(name: str, op: str, inputs: list[str], **given) -> None:
        where[name] = len(nodes)
        attrs = {key: str(value) for key, value in given.items()}
        nodes.append({"op": op, "name": name, "attrs": attrs, "inputs": [_at(n) for n in inputs]})

    def _at(name: str) -> list[int]:
        return [where[name], 0, 0]

    for row in rows:
        if row["op"] == "Constant":
            continue
        name, inputs = row["name"], [n for n in row["inputs"] if n in where]
        op, given = _operator(row, divisor, embedding)
        arrays = _arrays(row, shapes, divisor, side, embedding)
        for leaf, (shape, kind) in arrays.items():
            group = "aux" if leaf.startswith("moving") else "arg"
            keys.append((f"{group}:{name}_{leaf}", shape, kind))
            place(f"{name}_{leaf}", "null", [])
        if op == "SoftmaxOutput":
            place(f"{name}_label", "null", [])
            inputs.append(f"{name}_label")
        place(name, op, [*inputs, *(f"{name}_{leaf}" for leaf in arrays)], **given)
    version = {"mxnet_version": ["int", 10000]}
    return Twin({"nodes": nodes, "heads": [[len(nodes) - 1, 0, 0]], "attrs": version}, keys)


def _narrow(width: int, divisor: int) -> int:
    return width if width == 3 else width // divisor


def _operator(row: Row, divisor: int, embedding: int) -> tuple[str, dict]:
    """MXNet's operator and attributes of a node."""
    op = row["op"]
    if op in ("Conv", "DepthwiseConv"):
        kernel, group = numbers(row["kernel_shape"]), numbers(row["group"])[0]
        return "Convolution", {
            "kernel": kernel[:2],
            "num_filter": _narrow(kernel[3], divisor),
            "num_group": 1 if op == "Conv" else _narrow(group, divisor),
            "pad": numbers(row["pads"])[1:3],
            "stride": numbers(row["strides"])[1:3],
            "no_bias": row["use_bias"] == "False",
        }
    if op == "BatchNorm":
        eps = {} if row["epsilon"] == "0.001" else {"eps": row["epsilon"]}
        return "BatchNorm", {"fix_gamma": row["scale"] == "False", "momentum": 0.9} | eps
    if op == "Pool":
        whole = row["global_pooling"] == "True"
        given = {"global_pool": whole, "pool_type": row["pooling_type"].lower()}
        window = {"kernel": numbers(row["kernel_shape"])[1:3]}
        if not whole:
            window |= {key: numbers(row[f"{key}s"])[1:3] for key in ("pad", "stride")}
        return "Pooling", given | window
    if op == "FullyConnected":
        return op, {"num_hidden": embedding if row["name"] == "pre_fc1" else row["units"]}
    if op == "Mul" and len(row["inputs"]) == 2 and row["name"].startswith("mulscalar"):
        k = int(row["name"].removeprefix("mulscalar"))
        return "_mul_scalar", {"scalar": FACTORS[k - 1] if k else 0.0078125}
    plain = {
        "DataInput": ("null", {}),
        "Sub": ("_minus_scalar", {"scalar": 127.5}),
        "Mul": ("broadcast_mul", {}),
        "Add": ("elemwise_add", {}),
        "Concat": ("Concat", {"dim": 1, "num_args": len(row["inputs"])}),
        "PRelu": ("LeakyReLU", {"act_type": "prelu"}),
        "Relu": ("Activation", {"act_type": "relu"}),
        "Sigmoid": ("Activation", {"act_type": "sigmoid"}),
        "Dropout": ("Dropout", {"p": 0.4}),
        "Softmax": ("SoftmaxOutput", {}),
    }
    return plain[op]


def _arrays(row: Row, shapes: Mapping, divisor: int, side: int | None, embedding: int):
    """{leaf: (shape, kind for the recipe)} of a node."""
    op = row["op"]
    if op in ("Conv", "DepthwiseConv"):
        height, width, inputs, outputs = numbers(row["kernel_shape"])
        outputs = _narrow(outputs, divisor)
        inputs = 1 if op == "DepthwiseConv" else _narrow(inputs, divisor)
        bias = {"bias": ((outputs,), "bias")} if row["use_bias"] == "True" else {}
        return {"weight": ((outputs, inputs, height, width), "weight")} | bias
    if op == "FullyConnected":
        _, *sides, channels = shapes[row["inputs"][0]]
        outputs = embedding if row["name"] == "pre_fc1" else int(row["units"])
        inputs = embedding
        if sides:
            inputs = (side or sides[0]) ** 2 * _narrow(channels, divisor)
        return {"weight": ((outputs, inputs), "weight"), "bias": ((outputs,), "bias")}
    if op not in ("BatchNorm", "PRelu"):
        return {}
    channels = row["shape"][-1]
    channels = (embedding if row["name"] == "fc1" else _narrow(channels, divisor),)
    if op == "PRelu":
        return {"gamma": (channels, "prelu")}
    kinds = {"gamma": "weight", "beta": "bias", "moving_mean": "mean", "moving_var": "var"}
    return {leaf: (channels, f"bn_{kind}") for leaf, kind in kinds.items()}


def drawn(made: Twin, gain: float) -> dict[str, np.ndarray]:
    """{name with its group: array} of a twin, every number by the recipe."""
    return weights({"seed": 0, "gain": gain, "keys": made.keys})


def write(folder: Path, made: Twin, arrays: Mapping[str, np.ndarray]) -> tuple[Path, Path]:
    """`net-symbol.json` and `net-0000.params` (NDArrays V2) in a folder; their paths."""
    symbol, parameters = folder / "net-symbol.json", folder / "net-0000.params"
    symbol.write_text(json.dumps(made.symbol))
    with open(parameters, "wb") as file:
        file.write(struct.pack("<3Q", _MAGIC, 0, len(arrays)))
        for array in arrays.values():
            file.write(struct.pack(f"<Iii{array.ndim}q", _V2, 0, array.ndim, *array.shape))
            file.write(struct.pack("<3i", 1, 0, 0) + array.astype("<f4").tobytes())
        file.write(struct.pack("<Q", len(arrays)))
        for name in arrays:
            file.write(struct.pack("<Q", len(name)) + name.encode())
    return symbol, parameters
