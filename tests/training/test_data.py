"""The input pipeline: what it yields depends on seed and position alone; sources; augmentation."""

import itertools
import sys
import time
import types

import numpy as np
import pytest
from PIL import Image

from opom_jax.errors import InputError
from opom_jax.training.augment import augment
from opom_jax.training.data import batches, in_order
from opom_jax.training.sources import ArraySource, from_folder, from_synthetic
from opom_jax.training.verification import verification

SIZE = 16


@pytest.fixture
def folder(tmp_path):
    """a to e, two photos each: one colour a person."""
    for k, person in enumerate("abcde"):
        (tmp_path / person).mkdir()
        for n in range(2):
            pixels = np.full((SIZE, SIZE, 3), 40 * k + n, np.uint8)
            Image.fromarray(pixels).save(tmp_path / person / f"{n}.png")
    return tmp_path


@pytest.fixture
def numbered():
    """Ten photos, each of its number's grey; label = number."""
    grey = np.arange(10, dtype=np.uint8)[:, None, None, None]
    return ArraySource(np.tile(grey, (1, SIZE, SIZE, 3)), np.arange(10, dtype=np.int32))


# Batches.


def test_a_batch_depends_on_its_number_alone(numbered):
    whole = list(batches(numbered, 4, 7, 1.0, 0, 9))
    assert len(whole) == 9
    rest = list(batches(numbered, 4, 7, 1.0, 5, 9))
    for (a, b), (c, d) in zip(whole[5:], rest, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_every_photo_once_a_round_in_another_order(numbered):
    drawn = list(itertools.chain(*(own for _, own in batches(numbered, 5, 0, 0.0, 0, 6))))
    rounds = [drawn[k : k + 10] for k in (0, 10, 20)]
    assert all(sorted(one) == list(range(10)) for one in rounds)
    assert rounds[0] != rounds[1] != rounds[2] and rounds[0] != list(range(10))


def test_photos_keep_their_label(numbered):
    for images, labels in batches(numbered, 4, 3, 0.0, 0, 5):
        assert images.dtype == np.uint8 and labels.dtype == np.int32
        assert images.shape == (4, SIZE, SIZE, 3)
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


def test_seeds_differ(numbered):
    (one, first), (two, second) = (next(batches(numbered, 10, s, 1.0, 0, 1)) for s in (0, 1))
    assert list(first) != list(second) and not np.array_equal(one, two)


def test_in_order(numbered):
    found = list(in_order(numbered, 4))
    assert [len(own) for _, own in found] == [4, 4, 2]
    assert list(np.concatenate([own for _, own in found])) == list(range(10))


# Folders.


def test_folder(folder):
    data = from_folder(str(folder), SIZE, False, 2, 2)
    assert data.people == 3 and len(data.train) == 6 and len(data.held_out) == 4
    assert [int(data.train[k][1]) for k in range(6)] == [0, 0, 1, 1, 2, 2]
    image, label = data.held_out[3]
    assert label == 1 and image.shape == (SIZE, SIZE, 3) and (image == 161).all()
    Image.new("RGB", (SIZE, SIZE), "red").save(folder / "a" / "0.png")
    other = from_folder(str(folder), SIZE, False, 2, 2).record
    assert {k for k in other if other[k] != data.record[k]} == {"photos_sha256"}


def test_folders_that_are_refused(folder):
    def refused(*named, min_photos=2, held_out=2):
        with pytest.raises(InputError) as caught:
            from_folder(str(folder), SIZE, False, min_photos, held_out)
        assert all(name in str(caught.value) for name in named), caught.value

    refused("5 people, needs 6", "held_out=4", held_out=4)
    refused("'a'", "2 photos", "min_photos=3", "lower", min_photos=3)
    path = folder / "e" / "1.png"
    path.write_bytes(path.read_bytes()[:40])
    refused(str(path), "replace the file")
    path.unlink()
    refused("'e'", "1 photos", "min_photos=2")


def test_a_photo_that_vanishes(folder):
    data = from_folder(str(folder), SIZE, False, 2, 2)
    (folder / "b" / "1.png").unlink()
    with pytest.raises(InputError, match="b/1.png"):
        list(batches(data.train, 6, 0, 1.0, 0, 2))


# Synthetic people.


@pytest.fixture
def drawn(monkeypatch):
    """A stand-in for the renderer: photo n of person k is grey of 10 k + n. Gives its calls."""
    calls = []

    def photos(people, per_person, seed=0, first=0):
        calls.append(list(people))
        grey = np.array([[10 * k + n for n in range(per_person)] for k in people], np.uint8)
        return np.tile(grey[..., None, None, None], (1, 1, SIZE, SIZE, 3))

    module = types.ModuleType("opom_jax.data.synthetic")
    module.photos = photos  # pyright: ignore
    monkeypatch.setitem(sys.modules, "opom_jax.data.synthetic", module)
    monkeypatch.setattr("opom_jax.data.synthetic", module, raising=False)
    return calls


def test_synthetic(drawn, monkeypatch):
    monkeypatch.setattr("opom_jax.training.sources.CHUNK", 2)
    monkeypatch.setattr("opom_jax.data.portrait.head.SIZE", SIZE)
    done = []
    data = from_synthetic(5, 3, 2, 0, 2, lambda *counts: done.append(counts))
    assert drawn == [[5, 6], [7, 8], [9]] and done == [(2, 5), (4, 5), (5, 5)]
    assert data.people == 3 and len(data.train) == 6 and len(data.held_out) == 4
    image, label = data.train[5]
    assert label == 2 and (image == 71).all()
    assert [int(data.held_out[k][1]) for k in range(4)] == [3, 3, 4, 4]
    assert data.record["synthetic"] == {"first": 5, "people": 3, "photos": 2, "seed": 0}
    assert from_synthetic(6, 3, 2, 0, 2).record["photos_sha256"] != data.record["photos_sha256"]


# Augmentation.


@pytest.fixture
def photo():
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 7, 3), np.uint8))
    return np.array(coarse.resize((112, 112), Image.Resampling.BICUBIC))


def test_no_augmentation(photo):
    assert augment(photo, np.random.default_rng(0), 0.0) is photo


def test_augmentation(photo):
    kept = photo.copy()
    made = [augment(photo, np.random.default_rng(k), 1.0) for k in range(200)]
    np.testing.assert_array_equal(photo, kept)
    assert all(one.shape == photo.shape and one.dtype == np.uint8 for one in made)
    again = augment(photo, np.random.default_rng(3), 1.0)
    np.testing.assert_array_equal(again, made[3])
    flipped = [
        np.abs(one - photo[:, ::-1].astype(float)).mean() < np.abs(one - photo.astype(float)).mean()
        for one in made
    ]
    assert 70 < sum(flipped) < 130
    light = [one.mean() - photo.mean() for one in made]
    assert -60 < min(light) < -15 and 15 < max(light) < 60
    covered = [(one == 128).all(2).mean() > 0.01 for one in made]
    assert 20 < sum(covered) < 100


def test_weak_augmentation_changes_little(photo):
    def change(strength):
        rng = np.random.default_rng(0)
        pairs = [(photo, augment(photo, rng, strength)) for _ in range(60)]
        straight = [np.abs(a.astype(float) - b).mean() for a, b in pairs]
        return np.mean(sorted(straight)[:20])  # those that are not flipped

    assert 0 < change(0.1) < change(0.5) < change(1.0)


@pytest.mark.parametrize("shape", [(16, 16, 3), (33, 50, 3)])
def test_other_sizes(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    rng = np.random.default_rng(1)
    assert all(augment(image, rng, 1.0).shape == shape for _ in range(100))


def test_augmentation_is_cheap(photo):
    """0.2 ms on a quiet machine; the best of many, as others use it too."""
    rng, taken = np.random.default_rng(0), []
    for _ in range(200):
        start = time.thread_time()
        augment(photo, rng, 1.0)
        taken.append(time.thread_time() - start)
    assert min(taken) < 1.5e-3


# Verification.


def test_verification_by_hand():
    """Same pairs at 0.9 and 0.2, other pairs at 0.5 and below: the threshold 0.9 is right for one
    same pair of two and all others."""
    gram = np.array([[1, 0.9, 0.5, 0], [0.9, 1, 0.3, 0.1], [0.5, 0.3, 1, 0.2], [0, 0.1, 0.2, 1]])
    features = np.linalg.cholesky(gram).astype(np.float32)
    found = verification(features, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(found, [0.75, 0.55, 0.225], atol=1e-6)


def test_verification_of_many_is_sampled():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), rng.integers(1, 8, 30))
    features = rng.normal(size=(30, 5))[labels] + 0.5 * rng.normal(size=(len(labels), 5))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    shuffled = rng.permutation(len(labels))
    features, labels = features[shuffled], labels[shuffled]
    whole, some = verification(features, labels), verification(features, labels, pairs=4000)
    np.testing.assert_allclose(some, whole, atol=0.06)
    assert some == verification(features, labels, pairs=4000)


@pytest.mark.parametrize("apart, wanted", [(True, 1.0), (False, 0.5)])
def test_verification_at_its_ends(apart, wanted):
    features = (
        np.repeat(np.eye(3, dtype=np.float32), 2, 0) if apart else np.ones((6, 1), np.float32)
    )
    assert verification(features, np.repeat(np.arange(3), 2)).accuracy == wanted
