"""Chameleon's Keras recognisers against Keras itself, through every kind of file it writes."""

import dataclasses
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
from opom_jax.networks import openface, recognizer
from opom_jax.networks.deepface import DeepFace, LocallyConnected
from opom_jax.networks.deepid import DeepID
from opom_jax.networks.inception_resnet_v1 import InceptionResNetV1
from opom_jax.networks.layers import abstract
from opom_jax.networks.openface import OpenFace
from opom_jax.networks.recognizer import abstract_params
from opom_jax.networks.registry import NETWORKS
from opom_jax.networks.resnet import ResNet
from opom_jax.networks.vgg_face import VGGFace
from tests import keras_twins

TOLERANCE = 1e-4  # of the largest value
PUBLISHED = dict(NETWORKS)  # while a fixture makes one of them small
FILES = ("deepface.h5", "whole.h5", "alone.weights.h5", "whole.keras")


class Case(NamedTuple):
    """A network of the registry with less width or depth, and its twin."""

    build: Callable[[nnx.Rngs], nnx.Module]
    twin: Callable[[], Any]
    size: int
    gain: float = 1.4


def narrow(divisor):
    """OpenFace's modules, every width divided."""

    def divided(value):
        return value // divisor if isinstance(value, int) else tuple(v // divisor for v in value)

    return {
        name: widths._replace(
            **{k: divided(getattr(widths, k)) for k in ("three", "five", "pooled", "point")}
        )
        for name, widths in openface.MODULES.items()
    }


RESNET = {"units": (3, 4, 6, 3), "size": 40, "widths": (4, 4, 8, 8), "embedding": 16}
WIDTHS = (4, 4, 8, 8, 8)
CASES = {
    "arcface_resnet_34": Case(
        lambda rngs: ResNet(**RESNET, embedding_scale=True, rngs=rngs),
        partial(keras_twins.arcface, 40, (4, 4, 8, 8), 16),
        40,
        gain=1,
    ),
    "facenet": Case(
        lambda rngs: InceptionResNetV1((1, 2, 1), embedding=16, bn_scale=False, rngs=rngs),
        partial(keras_twins.facenet, 91, (1, 2, 1), 16),
        91,
        gain=1,
    ),
    "openface": Case(
        lambda rngs: OpenFace((8, 8, 24), narrow(8), embedding=16, rngs=rngs),
        partial(keras_twins.openface, 8, 16),
        96,
    ),
    "vgg_face": Case(
        lambda rngs: VGGFace(size=64, widths=WIDTHS, embedding=16, rngs=rngs),
        partial(keras_twins.vgg_face, 64, WIDTHS, 16, 9),
        64,
    ),
    "deepid": Case(lambda rngs: DeepID(rngs=rngs), keras_twins.deepid, 47),
    "fb_deepface": Case(
        lambda rngs: DeepFace(size=72, widths=(8, 8, 3, 4, 9), embedding=16, rngs=rngs),
        partial(keras_twins.deepface, 72, (8, 8, 3, 4, 9), 16, 9),
        72,
    ),
}


def prepared(name, photos):
    """As deepface feeds them: BGR 0..1, fitted into the image with black borders."""
    borders = ((0, 0), (4, 4), (0, 0), (0, 0)) if name == "deepid" else ((0, 0),) * 4
    return np.pad(photos, borders)[..., ::-1] / 255


def drawn(size):
    """Two photos f32[2,size,size,3] that differ in patches, which wide kernels do not average away,
    and from pixel to pixel."""
    rng = np.random.default_rng(1)
    patches = rng.uniform(0, 200, (2, 5, 5, 3)).repeat(-(-size // 5), 1).repeat(-(-size // 5), 2)
    photos = patches[:, :size, :size] + rng.uniform(0, 55, (2, size, size, 3))
    return photos.astype(np.float32)


class Saved(NamedTuple):
    name: str
    folder: Path
    photos: np.ndarray
    embedding: np.ndarray


def test_every_keras_network_has_a_case():
    """facenet512 is facenet with a longer embedding."""
    named = {name for name, spec in NETWORKS.items() if spec.layout.startswith("keras_")}
    assert named == {*CASES, "facenet512"}


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory):
    """A twin's files, with what it computes; its network of the registry is as small as it."""
    name, case = request.param, CASES[request.param]
    folder = tmp_path_factory.mktemp(name)
    photos = drawn(case.size)
    with keras_twins.plain():
        twin = case.twin()
        keras_twins.draw(twin, case.gain)
        embedding = keras_twins.outputs(twin, prepared(name, photos).astype(np.float32))
        keras_twins.save_as_deepface(twin, folder / FILES[0])
        twin.save(folder / FILES[1])
        twin.save_weights(folder / FILES[2])
        twin.save(folder / FILES[3])
    spec = dataclasses.replace(
        NETWORKS[name], build=case.build, size=case.size, embedding=embedding.shape[1]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, name, spec)
        yield Saved(name, folder, photos, embedding)


def test_parity(saved, tmp_path):
    """From deepface's file to the embedding; every photo has its own."""
    network = recognizer.load(convert(saved.folder / FILES[0], saved.name, tmp_path / "net"))
    found, wanted = jax.jit(network.embed)(network.params, saved.photos), saved.embedding
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())
    assert np.linalg.norm(wanted[0] - wanted[1]) > 0.01 * np.linalg.norm(wanted)
    assert (wanted != 0).mean() > 0.1


@pytest.mark.parametrize("file", FILES[1:])
def test_every_kind_of_file_holds_the_same(saved, file):
    found, wanted = (
        translate(saved.folder / f, formats.read(saved.folder / f), saved.name)
        for f in (file, FILES[0])
    )
    assert found.keys() == wanted.keys()
    for path in wanted:
        np.testing.assert_array_equal(found[path], wanted[path], err_msg=path)


def test_another_networks_file(saved, monkeypatch):
    """One error, with all that is missing and all that is unexpected, if so much is listed."""
    monkeypatch.setattr("converters.convert.LISTED", 10**6)
    path, other = saved.folder / FILES[0], "deepid" if saved.name != "deepid" else "openface"
    with pytest.raises(InputError) as caught:
        translate(path, formats.read(path), other)
    head, *lines = str(caught.value).splitlines()
    assert head.startswith(f"{path} does not fit network {other!r}")
    assert {line[1] for line in lines} >= {"+", "-"} and lines == sorted(lines)


def test_a_missing_layer(saved):
    path = saved.folder / FILES[0]
    arrays = formats.read(path)[""]
    lost = next(name for name in arrays if name.endswith(".kernel")).rpartition(".")[0]
    rest = {name: array for name, array in arrays.items() if name.rpartition(".")[0] != lost}
    with pytest.raises(InputError) as caught:
        translate(path, {"": rest}, saved.name)
    assert " - " in str(caught.value) and "/kernel" in str(caught.value)
    wrong = arrays | {f"{lost}.kernel": arrays[f"{lost}.kernel"].swapaxes(0, -1)}
    if wrong[f"{lost}.kernel"].shape != arrays[f"{lost}.kernel"].shape:
        with pytest.raises(InputError, match=rf"! {lost}.kernel .* wanted for"):
            translate(path, {"": wrong}, saved.name)


# The published sizes.


@pytest.mark.parametrize(
    ("name", "learned", "statistics"),
    [
        ("arcface_resnet_34", 34_139_328, 25_856),
        ("facenet", 22_779_312, 28_832),
        ("facenet512", 23_467_824, 29_600),
        ("openface", 3_733_968, 9_312),
        ("vgg_face", 145_002_878 - 2622 * 4097, 0),  # without the classifier
        ("deepid", 395_080, 0),
        ("fb_deepface", 137_774_071 - 8631 * 4097, 0),  # the same
    ],
)
def test_the_published_number_of_weights(name, learned, statistics):
    """And the embedding's length, at full width; nothing is computed."""
    spec = PUBLISHED[name]
    shapes = abstract_params(spec)
    numbers = {True: 0, False: 0}
    for path, value in shapes.items():
        numbers[path.rpartition("/")[2] in ("mean", "var")] += int(np.prod(value.shape))
    assert (numbers[False], numbers[True]) == (learned, statistics)
    graphdef, state = nnx.split(abstract(spec.build))
    photos = jax.ShapeDtypeStruct((1, 112, 112, 3), jnp.float32)
    embedding, _ = jax.eval_shape(
        lambda state, x: nnx.merge(graphdef, state)(spec.preprocess(x)), state, photos
    )
    assert embedding.shape == (1, spec.embedding)


# Layers.


def test_locally_connected():
    """Sums over a patch, written out."""
    layer = LocallyConnected(7, 2, 3, 3, stride=2, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 7, 7, 2)).astype(np.float32)
    layer.bias[...] = bias = rng.standard_normal((3, 3, 3)).astype(np.float32)
    kernel = np.asarray(layer.kernel[...]).reshape(3, 3, 3, 3, 2, 3)  # row, column, K, L, I, O
    found = layer(x)
    for b, row, column, o in np.ndindex(2, 3, 3, 3):
        patch = x[b, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        wanted = np.sum(patch * kernel[row, column, ..., o]) + bias[row, column, o]
        np.testing.assert_allclose(found[b, row, column, o], wanted, rtol=1e-4, atol=1e-5)


def test_pools_of_dead_windows_have_gradients():
    """A root's slope at zero is infinite, which must not reach the photo."""
    x = jnp.zeros((1, 6, 6, 2)).at[0, 0, 0, 0].set(3.0)
    gradient = jax.grad(lambda x: openface.l2_pool(x).sum())(x)
    assert gradient[0, 0, 0, 0] == 1 and np.abs(gradient).sum() == 1


def test_response_norm():
    x = np.random.default_rng(0).standard_normal((1, 1, 1, 20)).astype(np.float32) * 30
    wanted = [
        v / (1 + 1e-4 * np.sum(x[0, 0, 0, max(0, c - 5) : c + 6] ** 2)) ** 0.75
        for c, v in enumerate(x[0, 0, 0])
    ]
    np.testing.assert_allclose(openface.response_norm(x)[0, 0, 0], wanted, rtol=1e-5)


def test_what_a_crop_takes_from_beyond_the_photo_is_black():
    spec = dataclasses.replace(NETWORKS["deepid"], size=4, crop=(-1, 3, 1, 6))
    photos = np.arange(1, 49, dtype=np.float32).reshape(1, 4, 4, 3)
    wanted = np.pad(photos, ((0, 0), (1, 0), (0, 2), (0, 0)))[:, :4, 1:, ::-1] / 255
    np.testing.assert_allclose(spec.preprocess(jnp.asarray(photos)), wanted, rtol=1e-6)
