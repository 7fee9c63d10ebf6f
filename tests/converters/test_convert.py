"""Conversion: exact where it fits; where it does not, one message that lists everything."""

import hashlib
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from converters.convert import LISTED, convert, translate
from opom_jax.errors import InputError
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import abstract_params

torch = pytest.importorskip("torch")
from tests import torch_twins  # noqa: E402

pytestmark = pytest.mark.torch

NETWORK, OTHER = "mobilefacenet_lh185k", "mobilefacenet_lh377k"
FILE = Path("weights.pth")
DENSE = "output_layer.3.weight"


def state(twin):
    """Its state dict as arrays, every number drawn anew."""
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.5, 1.5, tuple(v.shape)).astype(np.float32) if v.ndim else v.numpy()
        for name, v in twin.state_dict().items()
    }


def tensors(arrays):
    return {name: torch.tensor(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def arrays():
    """{torch name: array} of NETWORK."""
    return state(torch_twins.mobilefacenet_small185k())


@pytest.fixture(scope="module")
def ir_arrays():
    return state(torch_twins.ir_tiny())


@pytest.fixture(scope="module")
def wanted(arrays):
    """{path: array} of NETWORK."""
    return translate(FILE, {"": arrays}, NETWORK)


def check_same(found, wanted):
    assert found.keys() == wanted.keys()
    for path, array in wanted.items():
        np.testing.assert_array_equal(found[path], array, strict=True)


def refusal(arrays, network=NETWORK, **options):
    """The message with which one group of arrays is refused."""
    with pytest.raises(InputError) as caught:
        translate(FILE, {"": arrays}, network, **options)
    return str(caught.value)


def listed(message):
    """The lines of a refusal that list problems."""
    head, *lines = message.splitlines()
    assert head.startswith(str(FILE)) and head.endswith(":")
    return lines


# What fits.


def test_every_array_is_f32_and_of_its_shape(wanted):
    shapes = abstract_params(NETWORK)
    assert wanted.keys() == shapes.keys()
    for path, array in wanted.items():
        assert array.shape == shapes[path].shape
        assert array.dtype == np.float32 and array.flags.c_contiguous


def test_a_convolution(arrays, wanted):
    """OIHW -> HWIO, and a depthwise filter (C,1,H,W) -> HWC."""
    stem, wise = arrays["conv1.conv.weight"], arrays["linear7.conv.weight"]
    for o, i, h, w in np.ndindex(stem.shape):
        assert wanted["stem/conv/kernel"][h, w, i, o] == stem[o, i, h, w]
    assert wanted["global_depthwise/conv/kernel"].shape == (7, 6, 256)
    np.testing.assert_array_equal(wanted["global_depthwise/conv/kernel"][3, 5], wise[:, 0, 3, 5])


def test_batch_norm_by_name(arrays, wanted):
    ours = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    for theirs, leaf in ours.items():
        array = arrays[f"blocks.3.conv.4.{theirs}"]
        np.testing.assert_array_equal(wanted[f"body/3/depthwise/bn/{leaf}"], array)
    assert np.unique([wanted[f"stem/bn/{leaf}"].sum() for leaf in ours.values()]).size == 4


def test_the_dense_head_keeps_the_order_of_torch(ir_arrays):
    """The published layer flattens C,H,W; ours sums over H,W,C."""
    kernel = translate(FILE, {"": ir_arrays}, "ir_tiny")["head/kernel"]
    assert kernel.shape == (7, 7, 512, 512)
    features = np.random.default_rng(1).standard_normal((2, 512, 7, 7)).astype(np.float32)
    flat = torch.nn.Flatten()(torch.tensor(features))
    wanted = torch.nn.functional.linear(flat, torch.tensor(ir_arrays[DENSE])).numpy()

    def close(kernel):
        found = np.einsum("bchw,hwcd->bd", features, kernel, optimize=True)
        return np.allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())

    assert close(kernel)
    assert not close(ir_arrays[DENSE].T.reshape(7, 7, 512, 512))
    assert not close(kernel.swapaxes(0, 1))


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_precisions_are_cast(arrays, dtype):
    typed = {n: a.astype(dtype) if a.ndim else a for n, a in arrays.items()}
    by_hand = {n: a.astype(np.float32) if a.ndim else a for n, a in typed.items()}
    found = translate(FILE, {"": typed}, NETWORK)
    check_same(found, translate(FILE, {"": by_hand}, NETWORK))


def test_counters_are_ignored(arrays, wanted):
    counters = [name for name in arrays if name.endswith("num_batches_tracked")]
    assert counters
    check_same(
        translate(FILE, {"": {n: a for n, a in arrays.items() if n not in counters}}, NETWORK),
        wanted,
    )
    assert listed(refusal(arrays | {"num_batches": np.zeros(())})) == [" + num_batches ()"]


@pytest.mark.parametrize("prefix", ["module.", "arcface.", "module.arcface."])
def test_prefixes_by_rule(prefix):
    """DataParallel's on every layout, "arcface." where the layout says so, if all names have it."""
    network = "mobilefacenet_bubbliiiing"
    arrays = state(torch_twins.MobileFaceNetBubbliiiing())
    named = {f"{prefix}{name}": array for name, array in arrays.items()}
    check_same(translate(FILE, {"": named}, network), translate(FILE, {"": arrays}, network))
    del named[f"{prefix}features.weight"]
    assert "- head/kernel" in refusal(named, network)
    some = named | {"features.weight": arrays["features.weight"]}
    assert f" + {prefix}conv1.conv.weight (64, 3, 3, 3)" in listed(refusal(some, network))


def test_a_rule_of_another_layout_does_not_apply(arrays):
    message = refusal({f"arcface.{name}": array for name, array in arrays.items()})
    assert " + arcface.blocks.0.conv.0.weight (64, 32, 1, 1)" in listed(message)


def test_a_head_is_unexpected_unless_the_prefix_excludes_it(arrays, wanted):
    """A training checkpoint: the network under one prefix, the classifier beside it."""
    named = {f"backbone.{name}": array for name, array in arrays.items()}
    named["head.weight"] = np.zeros((10_575, 128), np.float32)
    check_same(translate(FILE, {"": named}, NETWORK, prefix="backbone."), wanted)
    assert " + backbone.blocks.0.conv.0.weight (64, 32, 1, 1)" in listed(refusal(named))
    bare = arrays | {"head.weight": named["head.weight"]}
    assert listed(refusal(bare)) == [" + head.weight (10575, 128)"]


# What does not fit.


def test_one_message_lists_everything(arrays):
    wrong = dict(arrays)
    del wrong["linear1.bn.weight"], wrong["blocks.0.conv.2.weight"]
    wrong["fc.bias"] = wrong["a"] = np.zeros(3, np.float32)
    wrong["conv1.conv.weight"] = np.zeros((32, 3, 5, 5), np.float32)
    message = refusal(wrong)
    assert listed(message) == [
        " ! conv1.conv.weight (32, 3, 5, 5), wanted for stem/conv/kernel (3, 3, 3, 32)",
        " + a (3,)",
        " + fc.bias (3,)",
        " - body/0/expand/activation/slope (64,)",
        " - embedding_bn/scale (128,)",
    ]
    assert f"does not fit network {NETWORK!r}" in message and "--network" in message


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("linear1.conv.weight", lambda a: a.transpose(1, 0, 2, 3)),
        ("linear1.conv.weight", lambda a: a[:, :, 0, 0]),
        ("conv2.conv.weight", lambda a: a.transpose(2, 3, 1, 0)),  # as Flax has it
        ("conv1.conv.weight", lambda a: a.transpose(0, 1, 3, 2)[:, :, :, :2]),
        ("linear7.conv.weight", lambda a: a.transpose(0, 1, 3, 2)),
        ("linear7.conv.weight", lambda a: a.reshape(128, 2, 7, 6)),
        ("linear7.conv.weight", lambda a: a[:, 0].transpose(1, 2, 0)),  # as Flax has it
        ("conv1.prelu.weight", lambda a: a[:1]),
        ("conv1.bn.running_var", lambda a: a[None]),
        ("conv1.bn.running_var", lambda a: a[0]),
    ],
)
def test_arrays_of_another_shape(arrays, name, change):
    [line] = listed(refusal(arrays | {name: change(arrays[name])}))
    assert line.startswith(f" ! {name} ")


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.T,
        lambda a: a.reshape(512, 512, 7, 7),
        lambda a: a.reshape(512, 512, 7, 7).transpose(2, 3, 1, 0),  # as Flax has it
    ],
    ids=["transposed", "unflattened", "flax"],
)
def test_dense_heads_of_another_shape(ir_arrays, change):
    message = refusal(ir_arrays | {DENSE: change(ir_arrays[DENSE])}, "ir_tiny")
    assert [line.split()[:2] for line in listed(message)] == [["!", DENSE]]


@pytest.mark.parametrize("network", [OTHER, "ir_tiny", "mobilefacenet_foamliu"])
def test_the_wrong_network(arrays, network):
    message = refusal(arrays, network)
    *lines, rest = listed(message)
    assert f"does not fit network {network!r}" in message
    assert lines == sorted(lines) and len(lines) == LISTED
    assert re.fullmatch(r" and \d+ more", rest)


def test_a_deeper_network_has_unexpected_names(ir_arrays):
    deeper = state(torch_twins.IR((1, 1, 1, 2)))
    lines = listed(refusal(deeper, "ir_tiny"))
    assert lines and all(line.startswith(" + body.4.") for line in lines)
    lines = listed(refusal({n: a for n, a in ir_arrays.items() if "body.3" not in n}, "ir_tiny"))
    assert lines and all(line.startswith(" - body/3/") for line in lines)


# Files.


@pytest.fixture
def save(tmp_path):
    """save(object) -> path of a torch file of it."""

    def write(value):
        torch.save(value, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    return write


def test_from_file_to_embedding(save, tmp_path):
    """What the published network computes, the converted folder computes."""
    twin = torch_twins.mobilefacenet_small185k().eval()
    path = save(twin.state_dict())
    folder = convert(path, NETWORK, tmp_path / "net")
    assert folder == tmp_path / "net"
    network = recognizer.load(folder)
    photos = np.random.default_rng(0).uniform(0, 255, (2, 112, 112, 3)).astype(np.float32)
    with torch.no_grad():
        x = torch.tensor(photos[:, :, 8:104]).permute(0, 3, 1, 2)
        wanted = twin((x - 127.5) / 128).numpy()
    found = jax.jit(network.embed)(network.params, photos)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    source = json.loads((folder / "card.json").read_text())["source"]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert source == {"file": "weights.pth", "sha256": sha256}


def digest(folder):
    return json.loads((folder / "card.json").read_text())["weights_sha256"]


def test_nested_keys(save, tmp_path, arrays, wanted):
    """The one group that fits is found, whatever lies around it."""
    optimizer = {"exp_avg": torch.zeros(3), "step": 5}
    nested = {"epoch": 3, "net": {"optimizer": optimizer, "state_dict": tensors(arrays)}}
    path = save(nested)
    assert digest(convert(path, NETWORK, tmp_path / "a")) == recognizer.digest(wanted)
    folder = convert(path, NETWORK, tmp_path / "b", key="net/state_dict")
    assert digest(folder) == recognizer.digest(wanted)
    with pytest.raises(InputError, match="no tensors under 'state_dict'.*'net/state_dict'"):
        convert(path, NETWORK, tmp_path / "c", key="state_dict")


def test_several_candidates(save, tmp_path, arrays):
    other = {name: array + 1 for name, array in arrays.items()}
    path = save({"model": tensors(arrays), "model_ema": tensors(other)})
    with pytest.raises(InputError, match=r"several keys.*--key.*'model', 'model_ema'"):
        convert(path, NETWORK, tmp_path / "net")
    assert not (tmp_path / "net").exists()
    for key, group in (("model", arrays), ("model_ema", other)):
        folder = convert(path, NETWORK, tmp_path / key, key=key)
        assert digest(folder) == recognizer.digest(translate(FILE, {"": group}, NETWORK))


def test_the_nearest_candidate_is_listed(save, tmp_path, arrays):
    almost = tensors(arrays)
    del almost["conv1.bn.bias"]
    path = save({"other": {"a": torch.zeros(3)}, "model": almost})
    with pytest.raises(InputError) as caught:
        convert(path, NETWORK, tmp_path / "net")
    assert str(caught.value).splitlines()[1:] == [" - stem/bn/bias (32,)"]


def test_a_prefix_on_request(save, tmp_path, arrays, wanted):
    named = {f"net.{name}": array for name, array in tensors(arrays).items()}
    path = save(named | {"head.weight": torch.zeros(9, 128)})
    folder = convert(path, NETWORK, tmp_path / "net", prefix="net.")
    assert digest(folder) == recognizer.digest(wanted)


def test_refused_before_the_file_is_read(tmp_path):
    with pytest.raises(InputError, match="Unknown network 'nonsense'"):
        convert(tmp_path / "none.pth", "nonsense", tmp_path / "net")
    (tmp_path / "net").mkdir()
    with pytest.raises(InputError, match="exists already"):
        convert(tmp_path / "none.pth", NETWORK, tmp_path / "net")


@pytest.mark.parametrize("value", [{}, {"a": 1}, [1, "b"], {"num_batches_tracked": torch.ones(())}])
def test_files_without_weights(save, tmp_path, value):
    path = save(value)
    with pytest.raises(InputError, match="weights.pth"):
        convert(path, NETWORK, tmp_path / "net")
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pth"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite(save, tmp_path, arrays, value):
    broken = arrays["conv1.bn.bias"].astype(np.float64)
    broken[3] = value
    path = save(tensors(arrays | {"conv1.bn.bias": broken}))
    with np.errstate(over="ignore"), pytest.raises(InputError, match="not finite in stem/bn/bias"):
        convert(path, NETWORK, tmp_path / "net")
    assert not (tmp_path / "net").exists()


# Cost.

_MEASURED = """
    import sys, time
    import jax, orbax.checkpoint
    from converters.convert import convert

    def memory(field):
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

    start = time.process_time()
    convert(sys.argv[1], "ir_50", sys.argv[2])
    print(time.process_time() - start, memory("VmHWM"))
"""


@pytest.mark.slow
def test_a_large_file_in_seconds_and_little_memory(save, tmp_path):
    path = save(torch_twins.ir_50().state_dict())
    assert path.stat().st_size > 170e6
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_MEASURED), path, tmp_path / "net"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    seconds, mebibytes = map(float, ran.stdout.split())  # of processors, which load does not change
    assert seconds < 10 and mebibytes < 1024, f"{seconds:.1f} s, {mebibytes:.0f} MiB"
