"""Studies in memory: masks do not depend on batches, zero masks change nothing."""

import jax
import numpy as np
import pytest

from opom_jax import laboratory
from opom_jax.evaluation.features import extractor
from opom_jax.masks.generate import Settings
from tests.tiny import SIZE, Small, random_network

PEOPLE, PROBES, DISTRACTORS = 3, 4, 70


@pytest.fixture
def network(monkeypatch):
    return random_network(monkeypatch, Small)


@pytest.fixture(scope="module")
def photos() -> laboratory.Photos:
    draw = np.random.default_rng(1)

    def pictures(*shape):
        return draw.integers(0, 256, (*shape, SIZE, SIZE, 3), np.uint8)

    counts = (PROBES,) * PEOPLE
    return laboratory.Photos(
        pictures(PEOPLE, 2), pictures(PEOPLE * PROBES), counts, pictures(DISTRACTORS)
    )


def test_masks_do_not_depend_on_batches(network, photos, monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    settings = Settings(steps=2, initial_steps=1)
    together = laboratory.make_masks(network, settings, photos.train, people_per_batch=3)
    seen = []
    apart = laboratory.make_masks(
        network, settings, photos.train, 2, lambda done, total: seen.append((done, total))
    )
    assert together.shape == (PEOPLE, SIZE, SIZE, 3) and seen == [(2, 3), (3, 3)]
    np.testing.assert_allclose(apart, together, atol=1e-4)
    assert 0 < np.abs(together).max() <= 8


def test_sets_of_masks_by_the_names_of_the_tables(network, photos):
    sets = []
    made = laboratory.every_mask({"Tiny": network}, photos, progress=lambda *now: sets.append(now))
    rows = [laboratory.NOISE, *(("Tiny", name) for name in laboratory.METHODS)]
    assert list(made) == rows and sets == [(k, 5) for k in range(1, 6)]
    hull = laboratory.make_masks(network, Settings(), photos.train)
    np.testing.assert_array_equal(made["Tiny", "OPOM-ConvexHull"], hull)
    assert not set(laboratory.COMPARED) & set(laboratory.METHODS)


def test_a_mask_moves_the_features_away(network, photos, tmp_path):
    made = laboratory.make_masks(network, Settings(), photos.train)
    clean = laboratory.clean_features(network, photos, tmp_path)
    masked = laboratory.masked_probes(photos, made)[::PROBES]
    similar = laboratory.similarities(network, clean, masked, photos.counts)
    zero = laboratory.masked_probes(photos, np.zeros_like(made))[::PROBES]
    unmoved = laboratory.similarities(network, clean, zero, photos.counts)
    np.testing.assert_allclose(unmoved[:, 1], unmoved[:, 0], atol=1e-6)
    assert (np.abs(similar[:, 1] - similar[:, 0]) > 1e-4).all()


def test_masks_push_their_own_photos_farther_than_noise(network, photos, tmp_path):
    own = photos.train.reshape(-1, *photos.train.shape[2:])
    seen = photos._replace(probes=own, counts=(2,) * PEOPLE)
    clean = laboratory.clean_features(network, seen, tmp_path).probes
    made = laboratory.make_masks(network, Settings(method="fi_uap"), photos.train)
    noise = laboratory.random_masks(PEOPLE, SIZE)
    similar = [
        (clean * extractor(network)([laboratory.masked_probes(seen, masks)])).sum(1).mean()
        for masks in (made, noise, -made)
    ]
    assert similar[0] < similar[1] - 0.01 and similar[0] < similar[2] - 0.01


def test_zero_masks_leave_ranks_as_they_are(network, photos, tmp_path):
    clean = laboratory.clean_features(network, photos, tmp_path)
    assert clean.probes.shape == (PEOPLE * PROBES, 8) and clean.distractors.shape[0] == DISTRACTORS
    zero = np.zeros((PEOPLE, SIZE, SIZE, 3), np.float32)
    without, with_zero = laboratory.identify(network, photos, clean, [zero])
    np.testing.assert_array_equal(with_zero.rank, without.rank)
    assert len(without.rank) == PEOPLE * PROBES * (PROBES - 1)


def test_features_are_kept(network, photos, tmp_path, monkeypatch):
    first = laboratory.clean_features(network, photos, tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2
    monkeypatch.setattr(laboratory, "extractor", lambda network: pytest.fail)
    again = laboratory.clean_features(network, photos, tmp_path)
    np.testing.assert_array_equal(again.probes, first.probes)


def test_random_masks_are_signs():
    masks = laboratory.random_masks(2, SIZE, epsilon=3.0, seed=1)
    assert set(np.unique(masks)) == {-3.0, 3.0} and abs(masks.mean()) < 0.3
    assert not np.array_equal(masks, laboratory.random_masks(2, SIZE, epsilon=3.0, seed=2))


def test_people_of_studies_are_nobody_else(monkeypatch):
    drawn = []

    def photos(people, per_person, seed=0, first=0, progress=None):
        drawn.append((list(people), per_person, seed))
        return np.zeros((len(people), per_person, 2, 2, 3), np.uint8)

    monkeypatch.setattr(laboratory.synthetic, "photos", photos)
    made = laboratory.synthetic_photos(3, 4, 2, distractors=5, first=7, seed=9)
    assert drawn == [([7, 8, 9], 6, 9), (list(range(100_000, 100_005)), 1, 9)]
    assert made.train.shape[:2] == (3, 4) and made.counts == (2, 2, 2)
    assert (len(made.probes), len(made.distractors)) == (6, 5)
