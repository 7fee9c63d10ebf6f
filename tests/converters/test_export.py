"""The way back to torch: every name and number of the original, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from converters.convert import convert, translate
from converters.export import TORCH, export, state_dict
from opom_jax.errors import InputError
from opom_jax.networks.recognizer import abstract_params
from opom_jax.networks.registry import NETWORKS

torch = pytest.importorskip("torch")

from tests import torch_twins  # noqa: E402

SMALL = "mobilefacenet_lh185k"


def one_a_layout():
    """A network of each of torch's layouts: the first, and no other of the same rules."""
    first = {spec.layout: name for name, spec in reversed(NETWORKS.items())}
    return [first[layout] for layout in TORCH if not layout.startswith("iresnet_")] + ["iresnet_18"]


@pytest.mark.parametrize("name", one_a_layout())
def test_back_and_forth(name):
    """Names that translate to the same numbers; `state_dict` compares them itself, too."""
    draw = np.random.default_rng(0)
    arrays = {p: draw.random(v.shape, np.float32) for p, v in abstract_params(name).items()}
    tensors = state_dict(name, arrays)
    assert len(tensors) == len(arrays)
    again = translate(Path(name), {"": tensors}, name)
    for path, array in arrays.items():
        np.testing.assert_array_equal(again[path], array)


@pytest.fixture(scope="module")
def twin():
    made = torch_twins.mobilefacenet_small185k()
    draw = torch.Generator().manual_seed(0)
    for tensor in made.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=draw))
    return made


def test_torch_loads_what_it_had_saved(twin, tmp_path):
    torch.save(twin.state_dict(), tmp_path / "there.pth")
    convert(tmp_path / "there.pth", SMALL, tmp_path / "net")
    back = load_file(export(tmp_path / "net", tmp_path / "back.safetensors"))
    other = torch_twins.mobilefacenet_small185k()
    other.load_state_dict({name: torch.tensor(array) for name, array in back.items()})
    for name, tensor in twin.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_file_that_cannot_be_written(twin, tmp_path):
    torch.save(twin.state_dict(), tmp_path / "there.pth")
    folder = convert(tmp_path / "there.pth", SMALL, tmp_path / "net")
    assert export(folder, tmp_path / "new" / "folder" / "a.safetensors").exists()
    with pytest.raises(InputError, match="there.pth/a.safetensors cannot be written"):
        export(folder, tmp_path / "there.pth" / "a.safetensors")
    long = tmp_path / ("a" * 300)
    with pytest.raises(InputError, match="cannot be written .*; make room or choose another --out"):
        export(folder, long)


def test_refused(tmp_path):
    with pytest.raises(InputError, match="'ir_small' has no layout in torch"):
        export("zoo:surrogate_softmax", tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").touch()
    with pytest.raises(InputError, match="exists already"):
        export("zoo:surrogate_softmax", tmp_path / "b.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"]
