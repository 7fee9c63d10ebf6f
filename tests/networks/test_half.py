"""Networks at half the size, and the zoo: what is stored comes back rounded, or is refused."""

import json
import shutil

import numpy as np
import pytest

from opom_jax import files
from opom_jax.errors import InputError
from opom_jax.networks import half, recognizer

NETWORK = "mobilefacenet_lh185k"


@pytest.fixture(scope="module")
def arrays():
    """Random weights, among them variances that float16 cannot hold."""
    rng = np.random.default_rng(0)
    shapes = recognizer.abstract_params(NETWORK)
    drawn = {p: rng.normal(0, 0.05, v.shape).astype(np.float32) for p, v in shapes.items()}
    for path, array in drawn.items():
        if path.endswith("var"):
            array[:] = np.resize([1e-9, 1.0, 1e9], array.shape)
    return drawn


@pytest.fixture(scope="module")
def saved(arrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("half") / "net"
    recognizer.save(folder, NETWORK, arrays, {"trained": {}}, half=True)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "net")


def test_kernels_are_rounded_and_the_rest_is_kept(saved, arrays):
    assert {p.name for p in saved.iterdir()} == {"card.json", "params.npz"}
    loaded = recognizer.load(saved)
    found = {p: np.asarray(v[...]) for p, v in recognizer.flat(loaded.params).items()}
    assert found.keys() == arrays.keys()
    for path, array in arrays.items():
        assert found[path].dtype == np.float32
        if array.ndim > 1:
            np.testing.assert_array_equal(found[path], array.astype(np.float16))
            np.testing.assert_allclose(found[path], array, rtol=2**-11, atol=2**-25)
        else:
            np.testing.assert_array_equal(found[path], array)
    size = sum(array.nbytes for array in arrays.values())
    assert (saved / "params.npz").stat().st_size < 0.65 * size


def test_the_same_bytes_every_time(saved, arrays, tmp_path):
    recognizer.save(tmp_path / "again", NETWORK, arrays, {"trained": {}}, half=True)
    for name in ("card.json", "params.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_kernels_that_would_overflow_stay_float32():
    arrays = {"big": np.full((2, 2), 1e6, np.float32), "small": np.ones((2, 2), np.float32)}
    np.testing.assert_array_equal(half.rounded(arrays)["big"], arrays["big"])


def rewrite(folder, **changes):
    """Another params.npz, and a card that believes in it."""
    with np.load(folder / half.FILE) as stored:
        arrays = dict(stored)
    first = next(iter(arrays))
    for path, change in changes.items():
        arrays[first if path == "first" else path] = change(arrays[first])
    np.savez(folder / half.FILE, **arrays)  # pyright: ignore
    card = json.loads((folder / "card.json").read_text())
    card["params_sha256"] = files.content_sha256(folder / half.FILE)
    (folder / "card.json").write_text(json.dumps(card))


DAMAGES = {
    "cut": lambda folder: (folder / half.FILE).write_bytes(b"PK"),
    "turned bits": lambda folder: (folder / half.FILE).write_bytes(
        (folder / half.FILE).read_bytes()[:-9] + b"x" * 9
    ),
    "more": lambda folder: rewrite(folder, more=lambda array: array),
    "shape": lambda folder: rewrite(folder, first=lambda array: array[..., None]),
    "integers": lambda folder: rewrite(folder, first=lambda array: array.astype(int)),
    "pickles": lambda folder: rewrite(folder, first=lambda array: array.astype(object)),
    "other values": lambda folder: rewrite(folder, first=lambda array: array + 1),
    "a folder": lambda folder: ((folder / half.FILE).unlink(), (folder / half.FILE).mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged(folder, damage):
    damage(folder)
    with pytest.raises(InputError, match=r"params\.npz .*convert again"):
        recognizer.load(folder)


def test_no_room(arrays, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(InputError, match="No space left"):
        recognizer.save(tmp_path / "net", NETWORK, arrays, {}, half=True)
    assert list(tmp_path.iterdir()) == []


def test_zoo(saved, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(recognizer, "ZOO", tmp_path)
    loaded = recognizer.load("zoo:net")
    assert loaded.name == "net" and loaded.digest == recognizer.load(saved).digest
    for name in ("zoo:other", "zoo:", "zoo:../net", "zoo:.", f"zoo:{saved}"):
        with pytest.raises(InputError, match="is not in the zoo.*choose from zoo:net"):
            recognizer.load(name)
    monkeypatch.setattr(recognizer, "ZOO", tmp_path / "none")
    with pytest.raises(InputError, match="none is there yet"):
        recognizer.load("zoo:net")
