"""Torch files: what torch wrote comes back exactly; what it did not write does no harm."""

import os
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from converters.formats import torch_file
from opom_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("OPOM_REAL_DATA", ROOT / ".." / "shared" / "real")) / "weights"
DTYPES = "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool uint16 uint32 uint64"
SECONDS = 15  # of a processor; two to five on a quiet one


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=["zip", "legacy"])
def save(request, torch, tmp_path):
    """save(object) -> path of the file that torch wrote of it, in each of the two formats."""

    def write(value, **options):
        path = tmp_path / "weights.pth"
        zipped = request.param == "zip"
        torch.save(value, path, _use_new_zipfile_serialization=zipped, **options)
        return path

    return write


@pytest.fixture
def without_checksums(torch):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(before)


def check_same(array, tensor):
    """As torch has it, bit for bit, in memory of the array's own."""
    tensor = tensor.detach()
    assert str(tensor.dtype) == f"torch.{array.dtype}"
    wanted = tensor.float() if array.dtype == ml_dtypes.bfloat16 else tensor
    np.testing.assert_array_equal(array.astype(wanted.numpy().dtype), wanted.numpy(), strict=True)
    assert array.flags.owndata and array.flags.c_contiguous and array.dtype.isnative


def check_groups(groups, tensors):
    assert list(groups) == list(tensors)
    for path, group in groups.items():
        assert list(group) == list(tensors[path])
        for name, array in group.items():
            check_same(array, tensors[path][name])


def check_refused(path):
    """The one sentence with which a file is refused, in time."""
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        torch_file.read(path)
    assert time.process_time() - start < SECONDS
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and sentence.endswith(".") and "\n" not in sentence
    return sentence


# Files that torch wrote.


@pytest.mark.torch
@pytest.mark.parametrize("dtype", DTYPES.split())
def test_dtypes(torch, save, dtype):
    values = torch.tensor([[0, 1, 2], [3, 100, 127]]).to(getattr(torch, dtype))
    tensors = {"a": values, "scalar": values[1, 2].clone(), "none": values[:0].clone()}
    check_groups(torch_file.read(save(tensors)), {"": tensors})


@pytest.mark.torch
def test_special_floats(torch, save):
    values = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, 3.4e38])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        check_same(torch_file.read(save({"a": values.to(dtype)}))[""]["a"], values.to(dtype))


@pytest.mark.torch
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_pickle_protocols(torch, save, protocol):
    tensors = {f"layer{i}.weight": torch.full((i,), float(i)) for i in range(300)}
    path = save({"epoch": 3, "net": tensors}, pickle_protocol=protocol)
    check_groups(torch_file.read(path), {"net": tensors})


@pytest.mark.torch
def test_groups_of_nested_dicts(torch, save):
    one, two = torch.arange(3.0), torch.ones(2, 2)
    parameter = torch.nn.Parameter(torch.full((2,), 7.0))
    checkpoint = {
        "epoch": 68,
        "lr": 0.1,
        "names": ["a", "b"],
        "best": None,
        "state": {"w": one, "note": "text", 3: one, "inner": {"p": parameter}},
        "mean": two,
        "more": [{"x": two}, {"y": 1}, ({"z": one},)],
        "empty": {},
    }
    wanted = {
        "": {"mean": two},
        "state": {"w": one},
        "state/inner": {"p": parameter},
        "more/0": {"x": two},
        "more/2/0": {"z": one},
    }
    check_groups(torch_file.read(save(checkpoint)), wanted)


@pytest.mark.torch
def test_a_tensor_alone_has_no_name(torch, save):
    assert torch_file.read(save(torch.ones(2))) == {}


@pytest.mark.torch
def test_views_of_storages(torch, save):
    base = torch.arange(60.0).reshape(3, 4, 5)
    tensors = {
        "whole": base,
        "transposed": base.permute(2, 0, 1),
        "offset": base[1:, 2],
        "steps": base[::2, 1::2, ::3],
        "again": base,
        "element": base[2, 3, 4],
        "flat": base.view(60)[7:9],
        "row": torch.zeros(1, 3).expand(1, 3),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    groups = torch_file.read(save(tensors))
    check_groups(groups, {"": tensors})
    assert not np.shares_memory(groups[""]["whole"], groups[""]["again"])


@pytest.mark.torch
def test_expanded_tensor_is_refused(torch, save):
    assert "contiguous()" in check_refused(save({"a": torch.zeros(1).expand(1000)}))


@pytest.mark.torch
def test_state_dicts_of_network_and_optimizer(torch, save):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    states = {"net": network.state_dict(), "optimizer": optimizer.state_dict()}
    wanted = {"net": dict(states["net"])}
    for index, state in states["optimizer"]["state"].items():
        wanted[f"optimizer/state/{index}"] = state
    check_groups(torch_file.read(save(states)), wanted)


@pytest.mark.torch
def test_whole_module_is_refused_by_its_class(torch, save):
    sentence = check_refused(save(torch.nn.Sequential(torch.nn.Linear(2, 2))))
    assert "torch.nn.modules.container.Sequential" in sentence and "state_dict()" in sentence


@pytest.mark.torch
def test_malicious_pickle_does_not_run(torch, save, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'harm'}",)

    path = save({"a": torch.ones(2), "attack": Attack()})
    assert f"{os.system.__module__}.system" in check_refused(path)
    assert not (tmp_path / "harm").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "harm").exists()


@pytest.mark.torch
def test_truncated_files(torch, save):
    path = save({"epoch": 3, "net": {"a": torch.arange(9.0), "b": torch.ones(4, dtype=torch.bool)}})
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        check_refused(path)


@pytest.mark.torch
def test_mutated_files(torch, save, without_checksums):
    """Checksums would catch nearly all before they reach the pickle."""
    path = save({"epoch": 3, "net": {"a": torch.arange(9.0).reshape(3, 3).T, "b": torch.ones(2)}})
    data = path.read_bytes()
    source = random.Random(0)
    outcomes = {InputError: 0, dict: 0}
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(source.choice([1, 1, 1, 3, 20])):
            damaged[source.randrange(len(data))] = source.randrange(256)
        path.write_bytes(damaged)
        try:
            outcomes[type(torch_file.read(path))] += 1
        except InputError:
            outcomes[InputError] += 1
    assert outcomes[InputError] > 20 and outcomes[dict] > 20


@pytest.mark.torch
def test_files_without_checksums(torch, save, without_checksums):
    tensors = {"a": torch.arange(5.0)}
    check_groups(torch_file.read(save(tensors)), {"": tensors})


@pytest.mark.torch
def test_memory_is_twice_the_file_at_most(torch, save):
    path = save({str(i): torch.full((1 << 20,), float(i)) for i in range(8)})
    tracemalloc.start()
    try:
        torch_file.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.1 * path.stat().st_size


@pytest.mark.torch
@pytest.mark.parametrize(
    "pattern",
    [
        "mobilefacenet_xiaoccer/068.ckpt",
        "mobilefacenet_bubbliiiing/arcface_mobilefacenet.pth",
        "mobilefacenet_foamliu/mobile_face.pth",
        "mobilefacenet_lh_fpga_small/*.ckpt",
        "proface/*.pth",
    ],
)
def test_published_weights(torch, pattern):
    if not WEIGHTS.is_dir():
        pytest.skip(f"no real weights at {WEIGHTS}; set OPOM_REAL_DATA to their parent")
    paths = sorted(WEIGHTS.glob(pattern))
    assert paths
    for path in paths:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        key = "net_state_dict" if "net_state_dict" in loaded else ""
        check_groups(torch_file.read(path), {key: loaded[key] if key else loaded})


# Files put together by hand, with or without malice.


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return pickle.dumps(value, 2)[2:-1]


def items(*values):
    return b"(" + b"".join(values) + b"t"


def function(module, name, *args):
    return f"c{module}\n{name}\n".encode() + items(*args) + b"R"


def tensor(size=(2,), stride=(1,), offset=0, count=2, dtype="Float", key="0"):
    storage = f"ctorch\n{dtype}Storage\n".encode()
    pid = items(text("storage"), storage, text(key), text("cpu"), number(count))
    size, stride = items(*map(number, size)), items(*map(number, stride))
    hooks = function("collections", "OrderedDict")
    head = (pid + b"Q", number(offset), size, stride)
    return function("torch._utils", "_rebuild_tensor_v2", *head, b"\x89", hooks)


def mapping(**values):
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def write_zip(path, pickled, *storages, others=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + pickled + b".")
        for key, storage in enumerate(storages):
            archive.writestr(f"a/data/{key}", storage)
        for name, content in (others or {}).items():
            archive.writestr(f"a/{name}", content)
    return path


def write_legacy(path, pickled, *storages):
    """`storages`: pairs of (claimed number of elements, bytes)."""
    with open(path, "wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(value, file, protocol=2)
        file.write(b"\x80\x02" + pickled + b".")
        pickle.dump([str(key) for key in range(len(storages))], file, protocol=2)
        for count, storage in storages:
            file.write(struct.pack("<q", count) + storage)
    return path


FLOATS = np.array([1.5, -2.0], np.float32)


def test_handmade_files_are_good(tmp_path):
    pickled = mapping(w=tensor())
    for path in (
        write_zip(tmp_path / "zip", pickled, FLOATS.tobytes()),
        write_legacy(tmp_path / "legacy", pickled, (2, FLOATS.tobytes())),
    ):
        np.testing.assert_array_equal(torch_file.read(path)[""]["w"], FLOATS)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, ml_dtypes.bfloat16])
def test_big_endian(tmp_path, dtype):
    values = np.array([1, 0, 3], dtype)
    swapped = values.view(f"u{values.itemsize}").byteswap()
    names = {"float32": "Float", "int64": "Long", "bool": "Bool", "bfloat16": "BFloat16"}
    pickled = mapping(w=tensor((3,), count=3, dtype=names[values.dtype.name]))
    path = write_zip(tmp_path / "big", pickled, swapped.tobytes(), others={"byteorder": b"big"})
    np.testing.assert_array_equal(torch_file.read(path)[""]["w"], values, strict=True)
    check_refused(
        write_zip(tmp_path / "odd", pickled, swapped.tobytes(), others={"byteorder": b"middle"})
    )


def test_bools_are_zero_or_one(tmp_path):
    path = write_zip(tmp_path / "a", mapping(w=tensor(dtype="Bool")), b"\xff\x00")
    assert torch_file.read(path)[""]["w"].view(np.uint8).tolist() == [1, 0]


def test_dicts_as_python_2_wrote_them(tmp_path):
    pair = b"](" + b"U\x01w" + tensor() + b"e"  # a list of a str of bytes and a tensor
    pickled = function("collections", "OrderedDict", b"](" + pair + b"e")
    path = write_legacy(tmp_path / "a", pickled, (2, FLOATS.tobytes()))
    np.testing.assert_array_equal(torch_file.read(path)[""]["w"], FLOATS)


@pytest.mark.parametrize(
    "claims",
    [
        {"size": (3,)},
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**70},
        {"stride": (2,)},
        {"stride": (-1,)},
        {"stride": (0,), "size": (10**12,)},
        {"stride": (0, 0), "size": (2, 2)},
        {"size": (-1,)},
        {"size": (2, 1)},
        {"size": (1,) * 70, "stride": (1,) * 70},
        {"size": (2**62, 4), "stride": (1, 1)},
        {"size": (0, 2**62, 4), "stride": (1, 1, 1)},
        {"size": (), "stride": (), "offset": 2},
        {"size": (4,), "count": 4},
        {"count": -1},
        {"count": 2**62, "size": (2**62,)},
        {"dtype": "Double"},
        {"dtype": "ComplexFloat"},
        {"key": "7"},
    ],
)
def test_claims_that_the_bytes_do_not_hold(tmp_path, claims):
    pickled = mapping(w=tensor(**claims))
    check_refused(write_zip(tmp_path / "zip", pickled, FLOATS.tobytes()))
    check_refused(write_legacy(tmp_path / "legacy", pickled, (2, FLOATS.tobytes())))


@pytest.mark.parametrize("count", [-1, 3, 2**40, 2**63 - 1])
def test_legacy_storages_of_claimed_lengths(tmp_path, count):
    check_refused(write_legacy(tmp_path / "a", mapping(w=tensor()), (count, FLOATS.tobytes())))


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"}" + b"0" * 20,
        b"}r\xff\xff\xff\xff",  # memo at 2**32 - 1
        b"X\xff\xff\xff\xff",
        b"\x8d" + b"\xff" * 8,
        b"\x96" + b"\xff\xff\xff\x7f" + b"\0" * 4,  # a bytearray of 2 GiB
        b"\x95" + b"\xff" * 8,
        b"\x8b\xff\xff\xff\x7f",
        b"I" + b"9" * 10**6 + b"\n",
        b"}K\x01K\x02s" + b"(" * 100 + b"t" * 99,
        b"}}b0K\x01K\x02b",
        b"ctorch\nFloatStorage\n)R",
        b"ctorch\nFloatStorage\n)\x81",
        b"ctorch._utils\n_rebuild_tensor\n}b",
        b"(ctorch\nFloatStorage\no",
        b"\x82\x01",
        text("key") + b"Q",
        items(text("module"), b"N", b"N", b"N", b"N") + b"Q",
        items(text("storage"), b"N", b"N", b"N", b"N") + b"Q",
        b"X\x02\0\0\0\xff\xff",
    ],
)
def test_odd_pickles(tmp_path, pickled):
    check_refused(write_legacy(tmp_path / "legacy", pickled))
    check_refused(write_zip(tmp_path / "zip", pickled))


@pytest.mark.parametrize("name", ["builtins\neval", "__builtin__\nexec", "os\nsystem", "a\nb.c"])
def test_code_is_refused_by_name(tmp_path, name):
    module, attribute = name.split("\n")
    shown = f"{module}.{attribute}, which would run code"
    by_global = function(module, attribute, text("1"))
    by_stack = text(module) + text(attribute) + b"\x93" + items(text("1")) + b"R"
    for pickled in (by_global, mapping(w=by_stack)):
        assert shown in check_refused(write_zip(tmp_path / "zip", pickled))
        assert shown in check_refused(write_legacy(tmp_path / "legacy", pickled))
    check_refused(write_zip(tmp_path / "zip", b"(" + text("1") + f"i{name}\n".encode()))


@pytest.mark.parametrize(
    "pickled",
    [
        b"]q\0h\0a",  # a list that holds itself
        b"](" + b"}" * 500_000 + b"e",
        b"](" + (b"}" + text("k")) * 150_000 + b"N" + b"s" * 150_000 + b"e",
        b"](" + b"(" * 500_000 + b"t" * 500_000 + b"e",
        b")" + b"\x85" * 1_000_000,
        b"](" * 300_000 + b"e" * 300_000,
        b"(" * 1_000_000,
        # Lists of 1000 references to the list below.
        b"]" + b"".join(b"q%c](" % i + b"h%c" % i * 1000 + b"e" for i in range(15)),
    ],
    ids=["itself", "wide", "dicts", "tuples", "singles", "lists", "marks", "laughs"],
)
def test_deep_and_wide_containers(tmp_path, pickled):
    """Nothing crashes or takes long; that there are no tensors, or that it is too deep, is told."""
    path = write_zip(tmp_path / "a", pickled)
    start = time.process_time()
    try:
        assert torch_file.read(path) == {}
    except InputError as error:
        assert "deeply" in str(error) or "damaged" in str(error)
    assert time.process_time() - start < SECONDS


def test_long_pickles(tmp_path):
    pickled = b"]" + b"N0" * (1 << 20)
    assert "pickles over" in check_refused(write_zip(tmp_path / "zip", pickled))
    assert "pickles over" in check_refused(write_legacy(tmp_path / "legacy", pickled))


def test_keys_are_never_hashed(tmp_path):
    doubled = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(100))
    pickled = b"}" + doubled + b"Ns" + text("w") + tensor() + b"s"
    path = write_zip(tmp_path / "a", pickled, FLOATS.tobytes())
    assert list(torch_file.read(path)[""]) == ["w"]


def test_two_dicts_at_one_path(tmp_path):
    inner = mapping(w=tensor())
    pickled = b"}(" + text("a/b") + inner + text("a") + mapping(b=inner) + b"u"
    assert "'a/b'" in check_refused(write_zip(tmp_path / "a", pickled, FLOATS.tobytes()))


def test_one_storage_for_ever_more_tensors(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "_SPARE_MEMORY", 1000)
    pickled = mapping(**{f"w{i}": tensor((1000,), count=1000) for i in range(10)})
    path = write_zip(tmp_path / "a", pickled, bytes(4000))
    assert "too often" in check_refused(path)


def test_members_of_claimed_kinds(tmp_path):
    pickled, zeros = mapping(w=tensor((10**7,), count=10**7)), bytes(4 * 10**7)
    bomb = write_zip(tmp_path / "a", pickled, zeros, compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10**5 and "compressed" in check_refused(bomb)
    script = write_zip(tmp_path / "b", mapping(), others={"constants.pkl": b""})
    assert "TorchScript" in check_refused(script)
    with pytest.warns(UserWarning, match="Duplicate"):
        check_refused(write_zip(tmp_path / "d", mapping(), b"", others={"data/0": b""}))


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "_MAX_MEMBERS", 3)
    assert "members" in check_refused(write_zip(tmp_path / "a", mapping(), b"", b"", b""))


@pytest.mark.parametrize("field", ["CRC", "compress_size", "file_size", "header_offset"])
@pytest.mark.parametrize("claim", [1, 2**20, 2**31])
def test_members_of_claimed_places(tmp_path, field, claim):
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + mapping(w=tensor()) + b".")
        archive.writestr("a/data/0", FLOATS.tobytes())
        setattr(archive.infolist()[1], field, claim)
    check_refused(tmp_path / "a")


def test_members_that_overlap(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + mapping(w=tensor()) + b".")
        archive.writestr("a/data/0", bytes(10**6))
        for key in range(1, 100):
            archive.writestr(f"a/data/{key}", b"")
            for name in ("header_offset", "file_size", "compress_size"):
                setattr(archive.infolist()[-1], name, getattr(archive.infolist()[1], name))
    check_refused(tmp_path / "a")


# Quantised layers.


def deprecated_but_published(test):
    """torch warns of its own quantisation, by which files were made."""
    for warning in ("ignore:torch.quantize_per_tensor:UserWarning", "ignore::DeprecationWarning"):
        test = pytest.mark.filterwarnings(warning)(test)
    return test


@pytest.fixture(params=["per tensor", "per channel", "float16"])
def quantised(request, torch):
    """A network whose linear layers are quantised dynamically, none of its outputs alike."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(5, 7), torch.nn.Linear(7, 3, bias=False)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Sequential(*linear))
    with torch.no_grad():
        linear[0].weight *= torch.arange(1.0, 8)[:, None]
        linear[0].weight += 0.3
    configurations = {
        "per tensor": torch.ao.quantization.default_dynamic_qconfig,
        "per channel": torch.ao.quantization.per_channel_dynamic_qconfig,
        "float16": torch.ao.quantization.float16_dynamic_qconfig,
    }
    chosen = {torch.nn.Linear: configurations[request.param]}
    return torch.ao.quantization.quantize_dynamic(network, chosen)


@pytest.mark.torch
@deprecated_but_published
def test_quantised_linear_layers(torch, save, quantised):
    """As torch dequantises them, under the names of plain layers; nothing else of them is left."""
    one, two = quantised[1]
    plain = {
        "0.weight": quantised[0].weight,
        "0.bias": quantised[0].bias,
        "1.0.weight": one.weight().dequantize(),
        "1.0.bias": one.bias(),
        "1.1.weight": two.weight().dequantize(),
    }
    check_groups(torch_file.read(save(quantised.state_dict())), {"": plain})
    alone = {"weight": plain["1.0.weight"], "bias": plain["1.0.bias"]}
    check_groups(torch_file.read(save({"net": one.state_dict()})), {"net": alone})


@pytest.mark.torch
@deprecated_but_published
def test_quantised_tensors(torch, save):
    """Of any zero point, axis and layout, and beside layers' names that are none."""
    values = torch.linspace(-3, 5, 24).reshape(2, 3, 4)
    scales, zeros = torch.tensor([0.02, 0.5, 1e-3]), torch.tensor([-7, 0, 90])
    tensors = {
        "a": torch.quantize_per_tensor(values, 0.04, -20, torch.qint8),
        "b": torch.quantize_per_channel(values, scales, zeros, 1, torch.qint8),
        "scale": torch.ones(2),
    }
    tensors["c"] = tensors["a"].permute(2, 0, 1)
    plain = {n: t.dequantize() if t.is_quantized else t for n, t in tensors.items()}
    check_groups(torch_file.read(save(tensors)), {"": plain})


def quantised_tensor(quantiser):
    """Two quantised bytes at key 0."""
    storage = items(text("storage"), b"ctorch\nQInt8Storage\n", text("0"), text("cpu"), number(2))
    head = (storage + b"Q", number(0), items(number(2)), items(number(1)))
    hooks = function("collections", "OrderedDict")
    return function("torch._utils", "_rebuild_qtensor", *head, quantiser, b"\x89", hooks)


TENSOR, CHANNEL = b"ctorch\nper_tensor_affine\n", b"ctorch\nper_channel_affine\n"


def test_a_handmade_quantiser_is_good(tmp_path):
    pickled = mapping(w=quantised_tensor(items(TENSOR, number(0.5), number(-1))))
    path = write_zip(tmp_path / "a", pickled, b"\x01\x80")
    np.testing.assert_array_equal(torch_file.read(path)[""]["w"], np.float32([1.0, -63.5]))


@pytest.mark.parametrize(
    "quantiser",
    [
        text("abc"),
        items(),
        items(TENSOR),
        items(TENSOR, number(0.5)),
        items(TENSOR, number(0.5), number(0), number(0)),
        items(TENSOR, text("1"), number(0)),
        items(TENSOR, number(0.5), number(10**400)),
        items(TENSOR, tensor(), number(0)),
        items(text("other"), number(0.5), number(0)),
        items(CHANNEL, number(0.5), number(0), number(0)),
        items(CHANNEL, tensor(key="1"), tensor(key="1")),
        items(CHANNEL, tensor(key="1"), tensor(key="1"), number(1)),
        items(CHANNEL, tensor(key="1"), tensor(key="1"), text("0")),
        items(CHANNEL, tensor(key="1"), tensor((1,), key="1"), number(0)),
        items(CHANNEL, tensor(key="1"), tensor((3,), key="1"), number(0)),
        items(CHANNEL, tensor(key="1"), tensor(key="2"), number(0)),
    ],
)
def test_odd_quantisers(tmp_path, quantiser):
    pickled = mapping(w=quantised_tensor(quantiser))
    check_refused(write_zip(tmp_path / "a", pickled, b"\x01\x80", FLOATS.tobytes()))


def test_quantised_tensors_count_as_the_floats_they_become(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "_SPARE_MEMORY", 0)
    one = quantised_tensor(items(TENSOR, number(0.5), number(0)))
    pickled = mapping(**{f"w{i}": one for i in range(1000)})
    path = write_zip(tmp_path / "a", pickled, b"\x01\x80")
    assert torch_file.read(path)[""]["w999"].tolist() == [0.5, -64.0]
    monkeypatch.setattr(torch_file, "_SPARE_MEMORY", 7999 - path.stat().st_size)
    assert "too often" in check_refused(path)


# What is no torch file at all.


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"PK\5\6" + bytes(18),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<!DOCTYPE html>\n<html></html>",
        b"\x80\x04\x95",
        pickle.dumps({"a": 1}),
        bytes(1000),
        b"\xff" * 1000,
    ],
)
def test_other_files(tmp_path, data):
    (tmp_path / "a.pth").write_bytes(data)
    check_refused(tmp_path / "a.pth")


def test_other_archives(tmp_path):
    np.savez(tmp_path / "a.npz", a=FLOATS)
    check_refused(tmp_path / "a.npz")
    (tmp_path / "a.tar").write_bytes(bytes(257) + b"ustar\0" + bytes(1000))
    assert "tar" in check_refused(tmp_path / "a.tar")


def test_no_file(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none.pth", tmp_path / "pipe", tmp_path / "a\0b"):
        assert "not a file" in check_refused(path)
    (tmp_path / "a.pth").touch()

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "Permission denied" in check_refused(str(tmp_path / "a.pth"))
