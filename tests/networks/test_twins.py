"""Every network of the registry against its torch twin, from state dict to image gradient."""

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.recipe import weights
from converters.convert import translate
from converters.rules import LAYOUTS
from opom_jax.networks.ir import IR, UNITS
from opom_jax.networks.recognizer import abstract_params, recognizer
from opom_jax.networks.registry import NETWORKS

torch = pytest.importorskip("torch")
from tests import torch_twins  # noqa: E402
from tests.mxnet_twins import TABLES  # noqa: E402
from tests.networks.test_proface import LAYOUTS as PROFACE  # noqa: E402

pytestmark = pytest.mark.torch

TOLERANCE = 1e-4  # of the largest value
# relative L2; in float32 an activation near zero may take its other slope
GRADIENT_TOLERANCE = {np.float32: 3e-3, np.float64: 1e-6}


class Twin(NamedTuple):
    """How to build a twin, and how its photos f32[B,3,112,112] RGB 0..255 are prepared."""

    build: Callable[[], Any]
    prepare: Callable[[Any], Any]
    gain: float


def narrow(photos):
    return (photos[..., 8:104] - 127.5) / 128


def imagenet(photos):
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    return (photos / 255 - mean) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def ir(units, **options):
    return Twin(partial(torch_twins.IR, units, **options), lambda photos: photos, 0.5)


TWINS = {
    "ir_50": ir(UNITS[50]),
    "ir_101": ir(UNITS[101]),
    "ir_152": ir(UNITS[152]),
    "ir_se_50": ir(UNITS[50], se=True),
    "ir_se_101": ir(UNITS[101], se=True),
    "ir_50_224": ir(UNITS[50], size=224),
    "ir_101_224": ir(UNITS[101], size=224),
    "ir_152_224": ir(UNITS[152], size=224),
    "ir_se_50_224": ir(UNITS[50], size=224, se=True),
    "ir_se_101_224": ir(UNITS[101], size=224, se=True),
    "ir_tiny": ir((1, 1, 1, 1)),
    "ir_se_tiny": ir((1, 1, 1, 1), se=True),
    "mobilefacenet_xiaoccer": Twin(torch_twins.mobilefacenet_xiaoccer, narrow, 1.5),
    "mobilefacenet_lh377k": Twin(torch_twins.mobilefacenet_original377k, narrow, 1.5),
    "mobilefacenet_lh185k": Twin(torch_twins.mobilefacenet_small185k, narrow, 1.5),
    "mobilefacenet_bubbliiiing": Twin(
        torch_twins.MobileFaceNetBubbliiiing, lambda photos: photos / 127.5 - 1, 1.5
    ),
    "mobilefacenet_foamliu": Twin(torch_twins.MobileFaceNetFoamliu, imagenet, 1.5),
}


def drawn(twin, gain):
    """Random weights for a twin, every array as the goldens' recipe draws its kind."""
    shapes = {k: list(v.shape) for k, v in twin.state_dict().items() if v.ndim}
    normal = {k.removesuffix("running_mean") for k in shapes if k.endswith("running_mean")}

    def kind(name):
        prefix, _, leaf = name.rpartition(".")
        if f"{prefix}." in normal:
            return {"running_mean": "bn_mean", "running_var": "bn_var"}.get(leaf, f"bn_{leaf}")
        return "bias" if leaf == "bias" else "weight" if len(shapes[name]) > 1 else "prelu"

    keys = [[name, shape, kind(name)] for name, shape in shapes.items()]
    return weights({"seed": 0, "gain": gain, "keys": keys})


def as_torch(photos):
    return torch.tensor(photos.transpose(0, 3, 1, 2))


def check_parity(name, twin, size, dtype):
    """The embedding of a network and its twin with the same random weights; the image gradient."""
    photos = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    torch_net = twin.build().eval()
    arrays = drawn(torch_net, twin.gain)
    torch_net.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()}, strict=False)
    network = recognizer(name, translate(Path(name), {"": arrays}, name))

    with torch.no_grad():
        wanted = torch_net(twin.prepare(as_torch(photos))).numpy()
    found = jax.jit(network.embed)(network.params, photos)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())
    assert np.linalg.norm(wanted[0] - wanted[1]) > 0.01 * np.linalg.norm(wanted)  # sees the photos

    cotangent = np.random.default_rng(1).standard_normal(wanted.shape).astype(dtype)
    x = as_torch(photos.astype(dtype)).requires_grad_()
    output = torch_net.to(x.dtype)(twin.prepare(x))
    output.backward(torch.tensor(cotangent))
    wanted = x.grad.permute(0, 2, 3, 1).numpy()
    with jax.enable_x64(dtype == np.float64):
        typed = jax.tree.map(lambda a: a.astype(dtype), (network.params, photos))
        pulled = jax.jit(jax.grad(lambda p, x: jnp.vdot(network.embed(p, x), cotangent), 1))
        found = np.asarray(pulled(*typed))
    assert found.dtype == dtype
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert error < GRADIENT_TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, np.float64) for n in TWINS if "mobile" in n]
    + [("ir_tiny", np.float32), ("ir_se_tiny", np.float32)],  # whose width is slow in float64
)
def test_parity(name, dtype):
    check_parity(name, TWINS[name], 112, dtype)


@pytest.mark.parametrize(
    ("units", "size", "se"),
    [
        ((2, 1, 3, 1), 112, False),
        ((1, 2, 1, 2), 112, True),
        ((2, 1, 1, 1), 224, False),
        ((1, 1, 1, 2), 224, True),
    ],
)
def test_parity_of_other_depths_and_sizes(monkeypatch, units, size, se):
    """The deep and the large networks of the registry differ from these in numbers only."""
    options = {"size": size, "se": se, "widths": (16, 32, 48, 64)}
    spec = dataclasses.replace(
        NETWORKS["ir_50"], build=lambda rngs: IR(units, rngs=rngs, **options), size=size
    )
    monkeypatch.setitem(NETWORKS, "other", spec)
    check_parity("other", ir(units, **options), size, np.float64)


def test_every_network_that_is_converted_has_a_twin():
    """Those of MXNet are `TABLES`; transformers, Keras' and PRO-Face's networks have tests of their
    own, and insightface's differ from PRO-Face's in their number of units."""
    others = {name for name in LAYOUTS if re.match("vit|edgeface|keras_|iresnet_", name)}
    others |= PROFACE
    read = {name for name, s in NETWORKS.items() if s.layout in LAYOUTS.keys() - others}
    assert {*TWINS, *TABLES} == read


@pytest.mark.parametrize("name", TWINS)
def test_every_name_and_shape(name):
    """The whole state dict of the twin translates, nothing missing, unexpected or misshapen."""
    with torch.device("meta"):
        tensors = TWINS[name].build().state_dict()
    empty = {k: np.broadcast_to(np.float32(0), tuple(v.shape)) for k, v in tensors.items()}
    arrays = translate(Path(name), {"": empty}, name)
    numbers = sum(v.numel() for v in tensors.values() if v.ndim)
    assert sum(a.size for a in arrays.values()) == numbers


def test_the_published_number_of_weights():
    """Of OPOM's surrogate, without batch statistics."""
    shapes = abstract_params("ir_50")
    learned = [v for path, v in shapes.items() if path.rpartition("/")[2] not in ("mean", "var")]
    assert sum(np.prod(v.shape) for v in learned) == 43_574_976
