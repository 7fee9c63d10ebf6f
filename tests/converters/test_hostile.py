"""Hostile files made by hand: each is refused for what it is, before it costs anything."""

import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters import formats
from converters.convert import convert, convert_graph, translate
from converters.formats import mxnet_file
from converters.graphs import onnx_file
from opom_jax.errors import InputError
from opom_jax.networks import recognizer
from opom_jax.networks.graph import Graph, Node, paths
from tests.converters import goodfiles

HUGE = 10**12
SIDE = 8


def refused(function, *arguments, **options):
    """The one sentence with which a file is refused."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    sentence = str(caught.value)
    assert sentence.endswith(".") and sentence.isprintable() and len(sentence) < 1000
    cause = caught.value
    while cause is not None:
        assert not isinstance(cause, MemoryError)
        cause = cause.__context__
    return sentence


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.h5", "a.keras", "a.params"])
def test_pipes_and_folders_are_no_files(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for path in (tmp_path / name, tmp_path, tmp_path / "none", "/dev/zero"):
        assert "not a file" in refused(formats.read, path)
        assert "not a file" in refused(onnx_file.read, path)


# Torch.


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_a_command(tmp_path, protocol, zipped):
    path, attack = tmp_path / "a.pth", pickle.dumps(Attack(tmp_path / "harm"), protocol)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", attack)
    else:
        heads = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        path.write_bytes(b"".join(pickle.dumps(head, 2) for head in heads) + attack)
    sentence = refused(convert, path, "ir_tiny", tmp_path / "net")
    assert "would run code" in sentence or protocol == 0  # whose op-codes are not known at all
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]
    pickle.loads(attack)
    assert (tmp_path / "harm").exists()


def bomb(path, name, others=()):
    """An archive of 10 MB whose one member is 10 GiB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(10 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    content = 1024 * block + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    with zipfile.ZipFile(path, "w") as archive:
        for other, data in others:
            archive.writestr(other, data)
        archive.writestr(name, content)
        entry = archive.infolist()[-1]
        entry.compress_type, entry.file_size, entry.CRC = zipfile.ZIP_DEFLATED, 10 << 30, 0
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, entry.header_offset + 8, zipfile.ZIP_DEFLATED)
    path.write_bytes(data)
    return path


def test_bombs(tmp_path):
    path = bomb(tmp_path / "a.pth", "a/data/0", [("a/data.pkl", b"\x80\x02}.")])
    with zipfile.ZipFile(path) as archive, archive.open("a/data/0") as member:
        assert archive.getinfo("a/data/0").file_size == 10 << 30
        assert member.read(1 << 20) == bytes(1 << 20)
    assert "compressed" in refused(formats.read, path)
    assert "damaged" in refused(formats.read, bomb(tmp_path / "a.keras", "model.weights.h5"))


@pytest.mark.torch
def test_views_that_overlap(tmp_path):
    """What fits into its storage is a view like others; what outgrows it is refused."""
    torch = pytest.importorskip("torch")
    base = torch.arange(4.0)
    torch.save({"w": base.as_strided((2, 2), (1, 1))}, tmp_path / "a.pth")
    assert formats.read(tmp_path / "a.pth")[""]["w"].tolist() == [[0, 1], [1, 2]]
    torch.save({"w": base.as_strided((3, 2), (1, 1))}, tmp_path / "b.pth")
    assert "repeats its storage" in refused(formats.read, tmp_path / "b.pth")


def test_names_for_a_terminal():
    arrays = {"a\n - b\x1b[2J": np.ones(1, np.float32), "x" * 10**6: np.ones(1, np.float32)}
    with pytest.raises(InputError) as caught:
        translate(Path("a.pth"), {"": arrays}, "ir_tiny")
    found = [line for line in str(caught.value).splitlines() if line.startswith(" + ")]
    assert found[0] == r" + a\n - b\x1b[2J (1,)" and len(found) == 2 and len(found[1]) < 300


# MXNet.


@pytest.mark.parametrize("claim", [2**63, 2**63 - 1, 2**64 - 1, 2**32])
@pytest.mark.parametrize("place", ["arrays", "side", "names", "name"])
def test_lengths_that_no_file_has(tmp_path, claim, place):
    counts = {"arrays": 1, "side": 2, "names": 1, "name": 1} | {place: claim}
    array = struct.pack("<IiiQ3i", 0xF993FAC9, 0, 1, counts["side"], 1, 0, 0) + bytes(8)
    names = struct.pack("<2Q", counts["names"], counts["name"]) + b"w"
    content = mxnet_file.HEAD + struct.pack("<Q", counts["arrays"]) + array + names
    (tmp_path / "a.params").write_bytes(content)
    refused(formats.read, tmp_path / "a.params")


def test_empty_arrays_of_claimed_sides(tmp_path):
    array = struct.pack("<Iii3q3i", 0xF993FAC9, 0, 3, 0, 2**62, 2**62, 1, 0, 0)
    names = struct.pack("<2Q", 1, 1) + b"w"
    (tmp_path / "a").write_bytes(mxnet_file.HEAD + struct.pack("<Q", 1) + array + names)
    assert "larger than the file" in refused(formats.read, tmp_path / "a")


# Safetensors.


def write_safetensors(path, header, data=bytes(16), length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def entry(start, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(0, 8), "b": entry(4, 12)},
        {"a": entry(0, 8), "b": entry(0, 8)},
        {"a": entry(8, 24)},
        {"a": entry(8, 0)},
        {"a": entry(0, 2**63)},
        {"a": entry(0, 16, (2**62, 4))},
        {"a": entry(0, 0, (0, 2**62, 8)), "b": entry(0, 16, (4,))},
        {"a": entry(0, 16, (-4,))},
        {"a": entry(0, 16, (16,), "F8_E5M2")},
        b'{"a": %(a)b, "a": %(a)b}' % {b"a": json.dumps(entry(0, 16, (4,))).encode()},
        b"[" * 10**6,
        b'{"a":' * 10**5,
        b"{}",
    ],
)
def test_headers(tmp_path, header):
    refused(formats.read, write_safetensors(tmp_path / "a.safetensors", header))


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**40, 2**63, 2**64 - 1])
def test_lengths_of_headers(tmp_path, length):
    good = {"a": entry(0, 16, (4,))}
    assert formats.read(write_safetensors(tmp_path / "good", good))[""]["a"].shape == (4,)
    refused(formats.read, write_safetensors(tmp_path / "a.safetensors", good, length=length))


# HDF5.


def twice(file):
    file["a/itself"] = file["a"]


def ladder(file):
    """Ten levels, of ten ways each to the next."""
    group = file["a"]
    for _ in range(10):
        below = group.create_group("0")
        for k in range(1, 10):
            group[str(k)] = below
        group = below


def deep(file):
    file.create_group("/".join(["x"] * 50))


def references(file):
    file["r"] = np.array([file["a"].ref], h5py.ref_dtype)


def virtual(file):
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "w", (3,))
    file.create_virtual_dataset("v", layout)


@pytest.mark.parametrize(
    "harm, said",
    [
        (twice, "under two names"),
        (ladder, "under two names"),
        (deep, "nested too deeply"),
        (virtual, "other files"),
        (lambda f: f.__setitem__("l", h5py.ExternalLink("/etc/passwd", "/")), "links to elsewhere"),
        (lambda f: f.__setitem__("l", h5py.SoftLink("/a")), "links to elsewhere"),
        (
            lambda f: f.create_dataset("e", (9,), "u1", external=[("/etc/passwd", 0, 9)]),
            "other files",
        ),
        (lambda f: f.create_dataset("b", (HUGE,), "f4", chunks=(1 << 20,)), "larger than the file"),
    ],
)
def test_groups_and_links(tmp_path, harm, said):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/w"] = np.ones(3, np.float32)
        harm(file)
    assert said in refused(formats.read, tmp_path / "a.h5")


def test_a_compressed_bomb(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        packed = {"dtype": "f4", "chunks": (1 << 24,), "compression": "gzip"}
        file.create_dataset("w", (1 << 26,), **packed)[:] = 0
    assert (tmp_path / "a.h5").stat().st_size < 10**6
    assert "larger than the file" in refused(formats.read, tmp_path / "a.h5")


def test_references_are_no_weights(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/w"] = np.ones(3, np.float32)
        references(file)
    assert list(formats.read(tmp_path / "a.h5")[""]) == ["a.w"]


# Graphs.


def model(nodes, arrays, shape=(1, 3, SIDE, SIDE)):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [a if isinstance(a, TensorProto) else numpy_helper.from_array(a, n) for n, a in arrays],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def refused_model(tmp_path, *made):
    path = tmp_path / "a.onnx"
    path.write_bytes(model(*made).SerializeToString())
    sentence = refused(convert_graph, path, tmp_path / "net", scaling="none")
    assert sentence.startswith(str(path)) and os.listdir(tmp_path) == ["a.onnx"]
    return sentence


@pytest.mark.parametrize("location", ["/etc/passwd", "../../../../etc/passwd", "a.onnx"])
def test_weights_elsewhere(tmp_path, location):
    outside = numpy_helper.from_array(np.ones(9, np.float32), "w")
    onnx.external_data_helper.set_external_data(outside, location, 0, 36)
    outside.ClearField("raw_data")
    add = helper.make_node("Add", ["x", "w"], ["y"])
    assert "other files" in refused_model(tmp_path, [add], [("w", outside)])
    held = helper.make_node("Constant", [], ["w"], value=outside)
    assert "other files" in refused_model(tmp_path, [held, add], [])


def test_graphs_within_attributes(tmp_path):
    inner = model([helper.make_node("Relu", ["x"], ["y"])], []).graph
    node = helper.make_node("Relu", ["x"], ["y"], name="it", body=inner)
    assert "'it' a graph" in refused_model(tmp_path, [node], [])


def within(field, content):
    """A message of protobuf in the field of another."""
    size = len(content)
    return bytes((field << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14)) + content


def test_a_model_without_graph(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07")  # the version of its format, and no more
    assert "is no ONNX file or damaged" in refused(onnx_file.read, tmp_path / "a.onnx")


def test_graphs_nested_deeply(tmp_path):
    """Bytes, because protobuf does not write what it would not read."""
    content = b""
    for _ in range(1000):  # graph.node.attribute.g
        for field in (6, 5, 1):
            content = within(field, content)
    (tmp_path / "a.onnx").write_bytes(within(7, content))
    assert "damaged" in refused(onnx_file.read, tmp_path / "a.onnx")


@pytest.mark.parametrize("sides", [[HUGE], [-1], [2**62, 4], [0, 2**62, 8], [-1, 3]])
def test_arrays_of_claimed_sides(tmp_path, sides):
    for kind in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT4, TensorProto.STRING):
        claimed = TensorProto(name="w", data_type=kind, dims=sides, raw_data=bytes(24))
        refused_model(tmp_path, [helper.make_node("Add", ["x", "w"], ["y"])], [("w", claimed)])


def test_arrays_of_one_name(tmp_path):
    ones = np.ones(1, np.float32)
    add = helper.make_node("Add", ["x", "w"], ["y"])
    assert "'w' twice" in refused_model(tmp_path, [add], [("w", ones), ("w", ones)])


LONG = np.zeros(10**6, np.int64)
# what makes "a" of 10**12 numbers: (operator, inputs, attributes) rows, {name: integers}
LARGE = {
    "constant of shape": ([("ConstantOfShape", ("n",), {})], {"n": [HUGE]}),
    "of many sides": ([("ConstantOfShape", ("n",), {})], {"n": [10**4] * 3}),
    "expand": ([("Expand", ("one", "n"), {})], {"n": [HUGE], "one": [1]}),
    "expanded image": ([("Expand", ("x", "n"), {})], {"n": [HUGE, 1, 1, 1, 1]}),
    "reshape": ([("Reshape", ("x", "n"), {})], {"n": [HUGE]}),
    "pad": ([("Pad", ("x", "n"), {})], {"n": [0] * 7 + [HUGE]}),
    "pad reflect": ([("Pad", ("x", "n"), {"mode": "reflect"})], {"n": [0] * 7 + [HUGE]}),
    "pad wrap": ([("Pad", ("x", "n"), {"mode": "wrap"})], {"n": [0] * 7 + [10**6]}),
    "resize": ([("Resize", ("x", "", "", "n"), {})], {"n": [1, 3, 10**6, 10**6]}),
    "resize linear": (
        [("Resize", ("x", "", "", "n"), {"mode": "linear"})],
        {"n": [1, 3, 10**6, 10**6]},
    ),
    "pool": (
        [("AveragePool", ("x",), {"kernel_shape": (1, 1), "pads": (10**6,) * 4})],
        {},
    ),
    "convolution": ([("MaxPool", ("x",), {"kernel_shape": (1, 1), "pads": (10**6,) * 4})], {}),
    "outer sum": ([("Add", ("column", "row"), {})], {"row": LONG, "column": LONG[:, None]}),
    "outer gather": (
        [("Gather", ("square", "row"), {"axis": 1})],
        {"row": LONG, "square": LONG[:, None]},
    ),
    "split": ([("Split", ("x",), {"axis": 1, "parts": 10**9})], {}),
}


def rows(case):
    """Nodes that lead to "y" through the large value, and the arrays."""
    steps, arrays = LARGE[case]
    made = [(*step, "a") for step in steps] + [("Add", ("x", "a"), {}, "y")]
    return made, {name: np.asarray(value, np.int64) for name, value in arrays.items()}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A stored network of one sum."""
    graph = Graph(
        (Node("Add", "sum", ("x", "w"), ("y",)),), "x", "y", (1, 3, SIDE, SIDE), (), (("w", (1,)),)
    )
    folder = tmp_path_factory.mktemp("stored") / "net"
    arrays = {paths(graph)["w"]: np.ones(1, np.float32)}
    recognizer.save(folder, recognizer.graph_spec(graph), arrays, {"file": "x"}, half=True)
    return folder


@pytest.mark.parametrize("case", LARGE)
def test_a_card_of_large_values(case, stored, tmp_path):
    folder = shutil.copytree(stored, tmp_path / "net")
    card = json.loads((folder / "card.json").read_text())
    nodes, arrays = rows(case)
    card["graph"]["nodes"] = [
        [operator, output, inputs, [output], list(given.items())]
        for operator, inputs, given, output in nodes
    ]
    card["graph"]["constants"] = [
        [name, "int64", array.shape, array.ravel().tolist()] for name, array in arrays.items()
    ]
    (folder / "card.json").write_text(json.dumps(card))
    sentence = refused(recognizer.load, folder)
    assert "card.json" in sentence and "node 'a'" in sentence


@pytest.mark.parametrize("case", sorted(LARGE.keys() - {"split"}))
def test_a_file_of_large_values(case, tmp_path):
    nodes, arrays = rows(case)
    made = [helper.make_node(o, i, [out], name=out, **given) for o, i, given, out in nodes]
    sentence = refused_model(tmp_path, made, list(arrays.items()))
    assert "node 'a'" in sentence or "neither weights nor shapes" in sentence


@pytest.mark.parametrize(
    "field, value",
    [
        ("weights", [["w", [HUGE]]]),
        ("weights", [["w", [2**62, 2**62]]]),
        ("weights", [["w", [-1]]]),
        ("weights", [["w", ["a", 10**9]]]),
        ("shape", [1, 3, 10**9, 10**9]),
        ("constants", [["w", "S1000000000", [1], ["x"]]]),
        ("constants", [["w", "int64", [HUGE], [1]]]),
        ("constants", [["w", "int64", [1], [2**70]]]),
        ("nodes", [["Add", "sum", ["x", "w"], ["y"], [["alpha", {"a": 1}]]]]),
        ("nodes", [["Add", "sum", ["x", "w"], ["x"], []], ["Add", "b", ["x", "w"], ["y"], []]]),
        ("nodes", [["Cast", "sum", ["x"], ["y"], [["to", "S1000000000"]]]]),
    ],
)
def test_other_cards(field, value, stored, tmp_path):
    folder = shutil.copytree(stored, tmp_path / "net")
    card = json.loads((folder / "card.json").read_text())
    card["graph"][field] = value
    (folder / "card.json").write_text(json.dumps(card))
    assert "card.json" in refused(recognizer.load, folder)


def test_symbols_of_large_numbers(tmp_path):
    symbol = goodfiles.mxnet_files(tmp_path)
    text = symbol.read_text()
    for old, new in {
        '"num_outputs": "2"': f'"num_outputs": "{HUGE}"',
        '"scale": "2"': '"scale": "1000000"',
        '"pad": "(1, 1)"': '"pad": "(1000000, 1000000)"',
        '"(0, -1)"': json.dumps("(" * 10**5),
        '"slope"': '"' + "-" * 10 + '"',
    }.items():
        assert old in text
        symbol.write_text(text.replace(old, new))
        refused(
            convert_graph,
            tmp_path / "good.params",
            tmp_path / "net",
            symbol=symbol,
            size=SIDE,
            scaling="none",
        )
