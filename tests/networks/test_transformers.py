"""Vision transformers and EdgeFace against their torch twins, from file to image gradient."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters import formats
from converters.convert import convert, translate
from opom_jax.errors import InputError
from opom_jax.networks.edgeface import EdgeFace
from opom_jax.networks.recognizer import abstract_params, flat, load
from opom_jax.networks.registry import NETWORKS
from opom_jax.networks.vit import VisionTransformer

torch = pytest.importorskip("torch")
from tests import transformer_twins as twins  # noqa: E402

pytestmark = pytest.mark.torch

TOLERANCE = 1e-4  # of the largest value
GRADIENT_TOLERANCE = 1e-6  # relative L2, in float64
NARROW = (8, 12, 10, 16)  # three groups of ten channels are unequal


class Tiny(NamedTuple):
    """A narrow network, its twin, the entry of the registry that it stands in for, its photos."""

    build: Callable[..., nnx.Module]
    twin: Callable[[], Any]
    entry: str
    size: int


VIT = Tiny(  # 3 x 3 patches and two pixels over
    partial(VisionTransformer, 16, 2, size=29, heads=2),
    partial(twins.VisionTransformer, 16, 2, size=29, heads=2),
    "vit_t",
    29,
)


def edgeface(entry, **options):
    return Tiny(
        partial(EdgeFace, NARROW, (1, 1, 2, 1), heads=2, gamma=options.get("share")),
        partial(twins.EdgeFace, NARROW, (1, 1, 2, 1), heads=2, **options),
        entry,
        70,  # stages of 17, 8, 4 and 2 pixels: odd sides too
    )


TINY = {
    "vit": VIT,
    "edgeface": edgeface("edgeface_xxs"),
    "low rank": edgeface("edgeface_xs_gamma_06", share=0.6),
}
ONE_OF_EACH = pytest.mark.parametrize("tiny", ["vit", "edgeface"], indirect=True)


def randomize(twin):
    """Draws every array of a twin anew."""
    source = torch.Generator().manual_seed(0)
    for name, array in twin.state_dict().items():
        if array.ndim > 1:
            spread = math.prod(array.shape[1:]) ** -0.5
            array.copy_(spread * torch.randn(array.shape, generator=source))
        elif array.ndim:
            low, high = (-0.5, 0.5) if name.endswith(("bias", "mean")) else (0.5, 1.5)
            array.copy_(low + (high - low) * torch.rand(array.shape, generator=source))
    return twin.eval()


@pytest.fixture(params=TINY)
def tiny(request, monkeypatch):
    """A narrow network in the registry, as "tiny"."""
    tiny = TINY[request.param]
    build = lambda rngs: tiny.build(rngs=rngs)  # noqa: E731
    spec = dataclasses.replace(NETWORKS[tiny.entry], build=build, size=tiny.size)
    monkeypatch.setitem(NETWORKS, "tiny", spec)
    return tiny


@pytest.fixture
def twin(tiny):
    return randomize(tiny.twin())


@pytest.fixture
def folder(twin, tmp_path):
    """The twin's weights, saved by torch and converted."""
    torch.save(twin.state_dict(), tmp_path / "weights.pt")
    return convert(tmp_path / "weights.pt", "tiny", tmp_path / "net")


@pytest.fixture
def photos(tiny):
    shape = (2, tiny.size, tiny.size, 3)
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def embedded(twin, photos):
    """What the published code does with photos [B,H,W,3] in 0..255."""
    return twin(photos.permute(0, 3, 1, 2) / 127.5 - 1)


def test_embedding_and_gradient(twin, folder, photos):
    network = load(folder)
    with torch.no_grad():
        wanted = embedded(twin, torch.tensor(photos)).numpy()
    found = jax.jit(network.embed)(network.params, photos)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())
    assert np.linalg.norm(wanted[0] - wanted[1]) > 0.01 * np.linalg.norm(wanted)

    cotangent = np.random.default_rng(1).standard_normal(wanted.shape)
    x = torch.tensor(photos, dtype=torch.float64, requires_grad=True)
    embedded(twin.double(), x).backward(torch.tensor(cotangent))
    with jax.enable_x64(True):
        typed = jax.tree.map(lambda a: np.asarray(a, np.float64), (network.params, photos))
        pulled = jax.jit(jax.grad(lambda p, x: jnp.vdot(network.embed(p, x), cotangent), 1))
        found = np.asarray(pulled(*typed))
    error = np.linalg.norm(found - x.grad.numpy()) / np.linalg.norm(x.grad.numpy())
    assert error < GRADIENT_TOLERANCE


@ONE_OF_EACH
def test_bfloat16(folder, photos):
    """Kernels are bfloat16, the embedding is float32 and near that of float32."""
    exact, rough = load(folder), load(folder, "bfloat16")
    for path, v in flat(rough.params).items():
        assert v.dtype == (jnp.bfloat16 if path.endswith("/kernel") else jnp.float32)
    wanted, found = (jax.jit(n.embed)(n.params, photos) for n in (exact, rough))
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert found.dtype == jnp.float32 and 0 < error < 0.03
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(rough.embed(rough.params, x) ** 2)))(photos)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@ONE_OF_EACH
def test_gradients_of_an_even_image_are_finite(folder, tiny):
    """No length, spread or deviation that is zero divides anything."""
    network = load(folder)
    black = jnp.full((1, tiny.size, tiny.size, 3), 127.5)
    zeros = jax.tree.map(jnp.zeros_like, network.params)
    pulled = jax.jit(jax.grad(lambda p, x: jnp.sum(network.embed(p, x)), argnums=(0, 1)))
    for params in (network.params, zeros):
        for gradient in jax.tree.leaves(pulled(params, black)):
            assert np.isfinite(gradient).all()


@ONE_OF_EACH
def test_training(tiny):
    """train() and eval() reach every batch norm; every weight has a gradient."""
    net = nnx.jit(lambda: tiny.build(rngs=nnx.Rngs(0)))()
    norms = [module for _, module in nnx.iter_modules(net) if isinstance(module, nnx.BatchNorm)]
    assert len(norms) == (2 if tiny is VIT else 0)
    for switch, running in ((net.train, False), (net.eval, True), (net.train, False)):
        switch()
        assert all(norm.use_running_average == running for norm in norms)
    rng = np.random.default_rng(0)
    photos = rng.standard_normal((3, tiny.size, tiny.size, 3), np.float32)
    cotangent = rng.standard_normal((3, 512), np.float32)
    before = jax.tree.map(np.asarray, nnx.state(net, nnx.BatchStat))
    gradient = nnx.jit(nnx.grad(lambda net: jnp.vdot(net(photos)[0], cotangent)))(net)
    for path, v in flat(gradient).items():
        assert np.isfinite(v[...]).all() and np.abs(v[...]).max() > 0, path
    after = nnx.state(net, nnx.BatchStat)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert all(jax.tree.leaves(moved))


# What the registry holds.

FULL = {
    "vit_t": partial(twins.VisionTransformer, 256, 12),
    "vit_s": partial(twins.VisionTransformer, 512, 12),
    "vit_b": partial(twins.VisionTransformer, 512, 24),
    "vit_l": partial(twins.VisionTransformer, 768, 24),
    "edgeface_xxs": partial(twins.EdgeFace, (24, 48, 88, 168), (2, 2, 6, 2), 4),
    "edgeface_xs": partial(twins.EdgeFace, (32, 64, 100, 192), (3, 3, 9, 3), 4),
    "edgeface_xs_gamma_06": partial(twins.EdgeFace, (32, 64, 100, 192), (3, 3, 9, 3), 4, 0.6),
    "edgeface_s_gamma_05": partial(twins.EdgeFace, (48, 96, 160, 304), (3, 3, 9, 3), 8, 0.5),
    "edgeface_base": partial(twins.EdgeFace, (80, 160, 288, 584), (3, 3, 9, 3), 8),
}
PUBLISHED = {  # millions of weights, by EdgeFace's own table
    "edgeface_xxs": 1.24,
    "edgeface_xs_gamma_06": 1.77,
    "edgeface_s_gamma_05": 3.65,
    "edgeface_base": 18.23,
}


@pytest.mark.parametrize("name", FULL)
def test_numbers_of_weights(name):
    with torch.device("meta"):
        tensors = FULL[name]().state_dict()
    found = abstract_params(name)
    wanted = sum(v.numel() for k, v in tensors.items() if v.ndim and k != "mask_token")
    assert sum(math.prod(v.shape) for v in found.values()) == wanted
    learned = (v for k, v in found.items() if k.rpartition("/")[2] not in ("mean", "var"))
    millions = sum(math.prod(v.shape) for v in learned) / 1e6
    assert name not in PUBLISHED or round(millions, 2) == PUBLISHED[name]
    spec = NETWORKS[name]
    assert (spec.size, spec.channels, spec.embedding) == (112, "RGB", 512)


@pytest.mark.parametrize("name", ["vit_t", "edgeface_xxs", "edgeface_xs_gamma_06"])
def test_every_name_and_shape(name):
    """The others differ from these in numbers only."""
    with torch.device("meta"):
        tensors = FULL[name]().state_dict()
    empty = {k: np.broadcast_to(np.float32(0), tuple(v.shape)) for k, v in tensors.items()}
    assert translate(Path(name), {"": empty}, name).keys() == abstract_params(name).keys()


@pytest.mark.parametrize(
    ("network", "name"), [("vit_t", "mask_tokens"), ("edgeface_xxs", "model.mask_token")]
)
def test_only_its_own_layout_has_a_mask_token(network, name):
    """What training alone needs is left out by its exact name."""
    with torch.device("meta"):
        tensors = FULL[network]().state_dict()
    shapes = {k: tuple(v.shape) for k, v in tensors.items()} | {name: (1, 1, 8)}
    empty = {k: np.broadcast_to(np.float32(0), shape) for k, shape in shapes.items()}
    with pytest.raises(InputError) as caught:
        translate(Path("weights.pt"), {"": empty}, network)
    assert str(caught.value).splitlines()[1:] == [f" + {name.removeprefix('model.')} (1, 1, 8)"]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantised_edgeface(tmp_path):
    """The published files `edgeface_xs_q` and `edgeface_xxs_q`: what is dense is a step away."""
    twin = randomize(FULL["edgeface_xxs"]())
    quantised = torch.ao.quantization.quantize_dynamic(twin, {torch.nn.Linear}, dtype=torch.qint8)
    path = tmp_path / "edgeface_xxs_q.pt"
    torch.save(quantised.state_dict(), path)
    found = translate(path, formats.read(path), "edgeface_xxs")
    plain = {name: array.numpy() for name, array in twin.state_dict().items()}
    for name, wanted in translate(path, {"": plain}, "edgeface_xxs").items():
        dense = wanted.ndim == 2
        half_a_step = 0.501 * np.abs(wanted).max() / 127 if dense else 0
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=half_a_step, err_msg=name)
        assert dense != np.array_equal(found[name], wanted)
