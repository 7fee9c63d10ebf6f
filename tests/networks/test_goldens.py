"""The IR networks against outputs of the published code, with weights that anybody can draw."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters.convert import translate
from opom_jax.networks.layers import abstract
from opom_jax.networks.recognizer import recognizer
from opom_jax.networks.registry import NETWORKS

TOLERANCE = 1e-5  # of the largest feature; two float32 programs differ by 2e-6
GRADIENT_TOLERANCE = 3e-3  # relative L2: a PReLU near zero may take its other slope


class Seen(NamedTuple):
    """What a network gave for a batch of photos.

    Attributes:
      embedding: f32[B,D].
      stats: f32[blocks,4], mean, standard deviation, min and max of the stem and of every unit.
      probe: f32[blocks,16], of the first photo in the published order of axes, C H W.
      stem: f32[B,C,H,W] of the first two photos, at every 16th pixel.
    """

    embedding: jax.Array
    stats: jax.Array
    probe: jax.Array
    stem: jax.Array


def compiled(name, weights):
    """Photos f32[B,H,W,C] -> Seen, and the loaded network."""
    network = recognizer(name, translate(Path("recipe"), {"": weights}, name))
    spec = NETWORKS[name]
    graphdef = nnx.graphdef(abstract(spec.build))

    @jax.jit
    def run(params, photos):
        embedding, taps = nnx.merge(graphdef, params)(spec.preprocess(photos))
        blocks = [taps["stem"], *(taps[f"body/{k}"] for k in range(len(taps) - 1))]
        stats = [[x.mean(), x.std(ddof=1), x.min(), x.max()] for x in blocks]
        flat = [x[0].transpose(2, 0, 1).ravel() for x in blocks]
        probe = [x[:: x.size // 16][:16] for x in flat]
        stem = taps["stem"][:2, ::16, ::16].transpose(0, 3, 1, 2)
        return Seen(embedding, jnp.array(stats), jnp.stack(probe), stem)

    return lambda photos: run(network.params, photos), network


@pytest.fixture(scope="module")
def features(goldens):
    with np.load(goldens / "opom_features.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def photos(goldens):
    """f32[8,H,W,C]: two photos of each of four people."""
    with np.load(goldens / "images.npz") as file:
        return file["images112"][:4, :2].reshape(8, 112, 112, 3).astype(np.float32)


@pytest.fixture(scope="module")
def ir_50(recipe_weights):
    return compiled("ir_50", recipe_weights("IR_50"))


@pytest.fixture(scope="module")
def seen(ir_50, photos):
    run, _ = ir_50
    return run(photos)


def check_close(found, wanted, tolerance=TOLERANCE):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def check_blocks(seen, features, name):
    """Every block within the tolerance of its own largest value."""
    wanted = features[f"{name}_block_stats"]
    size = np.abs(wanted).max(1, keepdims=True)
    np.testing.assert_allclose(seen.stats / size, wanted / size, rtol=0, atol=TOLERANCE)
    probe = features[f"{name}_block_probe"]
    np.testing.assert_allclose(seen.probe / size, probe / size, rtol=0, atol=TOLERANCE)


def test_ir_50_features(seen, features):
    check_close(seen.embedding, features["IR_50_feat"])
    check_close(seen.embedding, features["IR_50_feat64"])


def test_ir_50_taps(seen, features):
    check_blocks(seen, features, "IR_50")
    check_close(seen.stem, features["IR_50_input_layer"])


def test_ir_50_gradient(ir_50, photos, features):
    _, network = ir_50
    cotangent = features["IR_50_vjp_cotangent"]

    @jax.jit
    def pulled(params, photos):
        return jax.vjp(lambda x: network.embed(params, x), photos)[1](cotangent)[0]

    wanted = features["IR_50_vjp"].transpose(0, 2, 3, 1)
    found = pulled(network.params, photos[:2])
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert error < GRADIENT_TOLERANCE


@pytest.mark.parametrize(
    ("control", "change"),
    [
        ("IR_50_feat_bgr", lambda photos: photos[..., ::-1]),
        ("IR_50_feat_scale_1_128", lambda photos: (photos - 127.5) / 10 + 127.5),
    ],
)
def test_wrong_preprocessing_is_seen(ir_50, photos, features, control, change):
    """Reversed channels and the usual 1/128 give other features, those of the published code."""
    run, _ = ir_50
    found = run(change(photos)).embedding[:2]
    check_close(found, features[control])
    right = features["IR_50_feat"][:2]
    assert np.linalg.norm(found - right) > 0.1 * np.linalg.norm(right)


def test_ir_50_with_stored_dropout(ir_50, photos, features):
    """49 masks in the order of the calls: the stem, then both convolutions of every unit."""
    _, network = ir_50
    kept = []

    def drop(_, output):
        batch, height, width, channels = output.shape
        draw = np.random.Generator(np.random.PCG64([77, len(kept)]))
        uniform = draw.random((batch, channels, height, width), np.float32)
        kept.append(uniform.transpose(0, 2, 3, 1) >= np.float32(0.1))
        return jnp.where(kept[-1], output * np.float32(1 / (1 - 0.1)), 0)

    found = jax.jit(lambda params, photos: network.embed(params, photos, lambda _: drop))
    check_close(found(network.params, photos[:2]), features["IR_50_drop_feat_det"])
    assert len(kept) == 49


@pytest.mark.parametrize(("name", "ours"), [("IR_SE_50", "ir_se_50"), ("IR_101", "ir_101")])
def test_deeper_and_gated(recipe_weights, photos, features, name, ours):
    run, _ = compiled(ours, recipe_weights(name))
    seen = run(photos[::2][:2])
    check_close(seen.embedding, features[f"{name}_feat"])
    check_blocks(seen, features, name)
