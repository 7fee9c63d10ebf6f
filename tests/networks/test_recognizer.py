"""A network as a pure function, and its folder: what is saved comes back, or is refused."""

import dataclasses
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opom_jax.errors import InputError
from opom_jax.networks import recognizer as room
from opom_jax.networks import winograd
from opom_jax.networks.ir import IR
from opom_jax.networks.recognizer import abstract_params, digest, load, recognizer, save
from opom_jax.networks.registry import NETWORKS

SMALL, LIKE_IT = "mobilefacenet_lh185k", "mobilefacenet_lh377k"


def drawn(network):
    """Random weights of a network, {path: array}."""
    rng = np.random.default_rng(0)
    arrays = {}
    for path, v in abstract_params(network).items():
        leaf = path.rpartition("/")[2]
        if leaf == "kernel":
            array = rng.standard_normal(v.shape) * np.prod(v.shape[:-1]) ** -0.5
        elif leaf in ("scale", "var"):
            array = rng.uniform(0.8, 1.2, v.shape)
        else:
            array = 0.1 * rng.standard_normal(v.shape)
        arrays[path] = array.astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def arrays():
    return drawn(SMALL)


@pytest.fixture(scope="module")
def network(arrays):
    return recognizer(SMALL, arrays)


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(1).uniform(0, 255, (3, 112, 112, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def embedding(network, photos):
    return np.asarray(jax.jit(network.embed)(network.params, photos))


@pytest.fixture(scope="module")
def saved(arrays, tmp_path_factory):
    """A saved network; not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "net"
    save(folder, SMALL, arrays, {"file": "weights.pth"})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A saved network to damage."""
    return shutil.copytree(saved, tmp_path / "net")


def change_card(folder, **changes):
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# As a function.


def test_embedding(network, photos, embedding):
    assert embedding.shape == (3, 128) and embedding.dtype == np.float32
    assert np.isfinite(embedding).all()
    assert np.linalg.norm(embedding[0] - embedding[1]) > 0.01 * np.linalg.norm(embedding[0])
    before = jax.tree.map(np.array, network.params)
    again = jax.jit(network.embed)(network.params, photos)
    np.testing.assert_array_equal(again, embedding)
    jax.tree.map(np.testing.assert_array_equal, network.params, before)


def test_batches_do_not_mix(network, photos, embedding):
    """The batch norms use what they have learnt, not the photos at hand; vmap is the batch."""
    alone = jax.jit(network.embed)(network.params, photos[:1])
    np.testing.assert_allclose(alone[0], embedding[0], rtol=0, atol=1e-5 * np.abs(embedding).max())
    mapped = jax.jit(jax.vmap(network.embed, (None, 0)))(network.params, photos[:, None])
    np.testing.assert_allclose(mapped[:, 0], embedding, rtol=0, atol=1e-5 * np.abs(embedding).max())


def test_gradient_reaches_the_photos(network, photos, embedding):
    """And only the columns that the network keeps; a step along it raises the score."""

    @jax.jit
    def score(x):
        return jnp.vdot(network.embed(network.params, x), embedding[0])

    gradient = jax.jit(jax.grad(score))(photos[:1])
    top, bottom, left, right = network.spec.crop
    inside = gradient[:, top:bottom, left:right]
    assert gradient.shape == (1, 112, 112, 3) and np.all(np.abs(inside).max((1, 2, 3)) > 0)
    assert np.count_nonzero(gradient) == np.count_nonzero(inside)
    assert score(photos[:1] + 0.1 * jnp.sign(gradient)) > score(photos[:1])


@pytest.mark.parametrize(("name", "channels"), [(SMALL, 1), ("ir_tiny", 1), ("ir_tiny", 10**9)])
def test_ready(name, channels, photos, monkeypatch):
    """Embedding and gradient with what is known beforehand, and no kernel turned in between."""
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", channels)
    room._prepare_of.cache_clear()
    try:
        network = recognizer(name, drawn(name))
        ready = network.ready()
    finally:
        room._prepare_of.cache_clear()

    @jax.jit
    def run(params, x):
        return jax.value_and_grad(lambda x: jnp.sum(network.embed(params, x) ** 2))(x)

    wanted, found = run(network.params, photos), run(ready, photos)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    apart = np.linalg.norm(found[1] - wanted[1]) / np.linalg.norm(wanted[1])
    assert apart < 2e-3  # where an activation has its kink
    plain, better = (run.lower(params, photos).as_text() for params in (network.params, ready))
    swap = "stablehlo.transpose", "dims = [0, 1, 3, 2]"
    assert _lines(plain, *swap) > 5 and _lines(better, *swap) == 0
    assert plain.count("stablehlo.rsqrt") > 10 and "stablehlo.rsqrt" not in better
    assert (better.count("dot_general") > 16) == (name == "ir_tiny" and channels == 1)


@pytest.mark.parametrize("name", [SMALL, "ir_tiny"])
def test_bfloat16(name, photos):
    arrays = drawn(name)
    full, half = recognizer(name, arrays), recognizer(name, arrays, precision="bfloat16")
    assert types(half) == {"kernel": jnp.bfloat16, "other": jnp.float32}
    wanted = np.asarray(jax.jit(full.embed)(full.params, photos))
    found = np.asarray(jax.jit(half.embed)(half.params, photos))
    assert found.dtype == np.float32 and np.isfinite(found).all()
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    assert ((found * wanted).sum(1) / lengths > 0.9999).all()
    assert not np.array_equal(found, wanted)


def _lines(text, *words):
    return sum(all(word in line for word in words) for line in text.splitlines())


def types(network):
    """The type of all kernels and that of all other arrays."""
    leaves = jax.tree.leaves(network.params)
    kernels, others = (
        {v.dtype for v in leaves if v.ndim > 1},
        {v.dtype for v in leaves if v.ndim == 1},
    )
    assert len(kernels) == len(others) == 1
    return {"kernel": kernels.pop(), "other": others.pop()}


@pytest.mark.parametrize("shape", [(128, 128), (96, 80), (250, 250)])
def test_photos_of_other_sizes_are_resized(network, shape):
    photos = np.random.default_rng(1).uniform(0, 255, (2, *shape, 3)).astype(np.float32)
    resized = jax.image.resize(photos, (2, 112, 112, 3), "bilinear")
    embed = jax.jit(network.embed)
    found, wanted = embed(network.params, photos), embed(network.params, resized)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_a_224_pixel_network_takes_112_pixel_photos(monkeypatch, photos):
    spec = NETWORKS["ir_50_224"]
    assert jax.eval_shape(spec.preprocess, photos).shape == (3, 224, 224, 3)

    def build(rngs):
        return IR((1, 1, 1, 1), size=224, widths=(16, 16, 16, 16), rngs=rngs)

    monkeypatch.setitem(NETWORKS, "small_224", dataclasses.replace(spec, build=build))
    network = recognizer("small_224", drawn("small_224"))
    embed = jax.jit(network.embed)
    found = embed(network.params, photos)
    wanted = embed(network.params, jax.image.resize(photos, (3, 224, 224, 3), "bilinear"))
    assert found.shape == (3, 512)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_preprocessing(channels):
    spec = dataclasses.replace(
        NETWORKS["ir_50"],
        size=4,
        crop=(1, 4, 0, 2),
        channels=channels,
        mean=(1.0, 2.0, 3.0),
        scale=(1.0, 10.0, 100.0),
    )
    photos = np.arange(2 * 4 * 4 * 3, dtype=np.float32).reshape(2, 4, 4, 3)
    kept = photos[:, 1:4, 0:2]
    kept = kept[..., ::-1] if channels == "BGR" else kept
    wanted = np.stack([(kept[..., c] - (c + 1)) * 10**c for c in range(3)], -1)
    np.testing.assert_allclose(spec.preprocess(photos), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_cards_are_json(name):
    card = NETWORKS[name].card()
    assert json.loads(json.dumps(card)) == card
    other = {"inception_resnet_v1": 160, "facenet": 160, "facenet512": 160, "openface": 96}
    other |= {"vgg_face": 224, "deepid": 47, "fb_deepface": 152}
    assert card["size"] == other.get(name, 224 if name.endswith("224") else 112)


# What is refused.


def test_unknown_network(arrays):
    with pytest.raises(InputError, match="Unknown network 'nonsense'.*mobilefacenet_lh185k"):
        recognizer("nonsense", arrays)


def test_arrays_that_do_not_fit(arrays):
    path = "head/kernel"
    without = {p: a for p, a in arrays.items() if p != path}
    for wrong in (without, arrays | {"more": np.zeros(1)}, arrays | {path: arrays[path][..., 1:]}):
        with pytest.raises(InputError, match="1 paths differ, first (head/kernel|more) "):
            recognizer(SMALL, wrong)


# As a folder.


def test_what_is_saved_comes_back(saved, arrays, network, photos, embedding):
    loaded = load(saved)
    assert (loaded.name, loaded.spec, loaded.digest) == ("net", NETWORKS[SMALL], digest(arrays))
    jax.tree.map(np.testing.assert_array_equal, loaded.params, network.params)
    np.testing.assert_array_equal(jax.jit(loaded.embed)(loaded.params, photos), embedding)
    assert {p.name for p in saved.iterdir()} == {"card.json", "params"}
    assert [p.name for p in saved.parent.iterdir()] == ["net"]


def test_precision_of_a_loaded_network(saved):
    loaded = load(saved, "bfloat16")
    assert types(loaded) == {"kernel": jnp.bfloat16, "other": jnp.float32}


def test_card(saved, arrays):
    card = json.loads((saved / "card.json").read_text())
    assert card["network"] == SMALL and card["source"] == {"file": "weights.pth"}
    assert card["weights_sha256"] == digest(arrays)
    assert card["shapes"] == {p: list(a.shape) for p, a in arrays.items()}
    assert card["preprocessing"] == NETWORKS[SMALL].card()


def test_digest_is_of_every_bit(arrays):
    same = dict(reversed(arrays.items()))
    assert digest(same) == digest(arrays)
    first = next(iter(arrays))
    other = arrays[first].copy()
    other.flat[0] = np.nextafter(other.flat[0], np.float32(9))
    assert digest(arrays | {first: other}) != digest(arrays)
    assert digest(arrays | {first: arrays[first][None]}) != digest(arrays)
    renamed = {f"{p}x" if p == first else p: a for p, a in arrays.items()}
    assert digest(renamed) != digest(arrays)


def test_digest_is_the_same_everywhere():
    wanted = "4b53ee69793747f4ca573bf64b8b81ffb7d83765b1c059092b45241d747b13fa"
    assert digest({"a": np.arange(3, dtype=np.float32)}) == wanted


def test_an_existing_folder_is_kept(saved, arrays):
    before = (saved / "card.json").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        save(saved, SMALL, arrays, {})
    assert (saved / "card.json").read_bytes() == before


def test_what_an_earlier_process_of_this_number_left(tmp_path, arrays):
    (tmp_path / f".net.{os.getpid()}.partial" / "params").mkdir(parents=True)
    save(tmp_path / "net", SMALL, arrays, {})
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_nothing(monkeypatch, tmp_path, arrays, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(room.os, "rename", fail)
    wanted = InputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted, match="No space" if wanted is InputError else None):
        save(tmp_path / "net", SMALL, arrays, {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path, arrays):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        save(tmp_path / "file" / "net", SMALL, arrays, {})


def test_no_network_at_all(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=r"no converted network \(no card.json\)"):
            load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"network": "ir_50"}', "\xff\xfe"])
def test_cards_of_something_else(folder, text):
    (folder / "card.json").write_text(text, "latin-1")
    with pytest.raises(InputError, match="is not a network's card"):
        load(folder)


def test_a_card_that_is_a_pipe(folder):
    (folder / "card.json").unlink()
    os.mkfifo(folder / "card.json")
    with pytest.raises(InputError, match="is not a network's card"):
        load(folder)


@pytest.mark.parametrize("network", ["nonsense", None, ["ir_50"], 3])
def test_cards_of_an_unknown_network(folder, network):
    change_card(folder, network=network)
    with pytest.raises(InputError, match="card.json"):
        load(folder)


def test_a_card_of_another_network(folder):
    change_card(folder, network=LIKE_IT)
    with pytest.raises(InputError, match="other shapes"):
        load(folder)


def test_a_card_of_other_shapes(folder, arrays):
    shapes = {p: list(a.shape) for p, a in arrays.items()} | {"head/kernel": [1, 1, 256, 64]}
    change_card(folder, shapes=shapes)
    with pytest.raises(InputError, match="other shapes"):
        load(folder)


def test_another_preprocessing(folder):
    change_card(folder, preprocessing=NETWORKS[SMALL].card() | {"channels": "BGR"})
    with pytest.raises(InputError, match="another preprocessing"):
        load(folder)


def test_other_weights_than_the_card_says(folder):
    change_card(folder, weights_sha256="0" * 64)
    with pytest.raises(InputError, match="does not hold what its card says"):
        load(folder)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite(tmp_path, arrays, value):
    broken = {path: array.copy() for path, array in arrays.items()}
    for path in ("stem/bn/var", "head/kernel"):
        broken[path].flat[-1] = value
    save(tmp_path / "net", SMALL, broken, {})
    with pytest.raises(InputError, match=r"net has values that .* finite in head/kernel; convert"):
        load(tmp_path / "net")


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
def test_damaged_weights(folder, damage):
    largest = max((p for p in (folder / "params").rglob("*") if p.is_file()), key=size)
    data = bytearray(largest.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
    elif damage == "cut":
        largest.write_bytes(data[: len(data) // 2])
    elif damage == "remove":
        largest.unlink()
    else:
        shutil.rmtree(folder / "params")
    with pytest.raises(InputError, match="params.*convert again"):
        load(folder)


def size(path):
    return path.stat().st_size


def test_a_network_moved_and_renamed(folder, tmp_path):
    folder.rename(tmp_path / "surrogate")
    assert load(tmp_path / "surrogate").name == "surrogate"


def test_a_change_of_outputs_is_gone_afterwards(network, photos):
    """It costs nothing where there is none: the program is the same before and after."""

    def program(*change):
        embed = jax.jit(lambda params, photos: network.embed(params, photos, *change))
        return embed.lower(network.params, photos).as_text()

    before = program()
    assert program(lambda _: lambda place, output: output + place) != before
    assert program() == program(None) == before


def test_weights_are_arguments(network):
    """A compiled program holds no weights of its own: it serves every network of the kind."""
    text = jax.jit(network.embed).lower(network.params, jnp.zeros((1, 112, 112, 3))).as_text()
    assert len(text) < 1_000_000
    assert isinstance(network.params, nnx.State)
