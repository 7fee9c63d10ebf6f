"""Diverse masks: one is the method's own, several are apart from one another."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax.data import synthetic
from opom_jax.masks.batches import Batch
from opom_jax.masks.diverse import diverse_masks
from opom_jax.masks.generate import Settings, generate, generator
from opom_jax.networks import recognizer
from tests.tiny import SIZE, Small, random_network


@pytest.fixture(scope="module")
def network():
    return recognizer.load("zoo:surrogate_softmax")


@pytest.fixture(scope="module")
def batch():
    photos = synthetic.photos(range(2), 3)
    return Batch(np.arange(2, dtype=np.int32), photos, np.array([[1, 1, 1], [1, 1, 0]], np.float32))


@pytest.fixture
def tiny(monkeypatch):
    return random_network(monkeypatch, Small)


@pytest.mark.parametrize("start, dropout", [("published", 0.0), ("person", 0.0), ("person", 0.1)])
def test_one_mask_is_the_methods_own(tiny, batch, start, dropout):
    settings = Settings(steps=3, initial_steps=1, start=start, dropout=dropout)
    batch = batch._replace(photos=batch.photos[:, :, 40 : 40 + SIZE, 40 : 40 + SIZE])
    alone = generate(generator(tiny, settings), tiny.params, settings, batch)[0]
    assert np.abs(alone).max() > 1
    found = diverse_masks(tiny, settings, batch, 1)
    # single signs may turn where a gradient is as good as zero
    assert np.mean(np.abs(found[:, 0] - alone) > 1e-3) < 1e-3


@pytest.mark.parametrize("start", ["published", "person"])
def test_seeds_after_the_last_are_the_first(tiny, start):
    photos = np.random.default_rng(0).integers(0, 256, (1, 2, SIZE, SIZE, 3), np.uint8)
    batch = Batch(np.int32([0]), photos, np.ones((1, 2), np.float32))
    last, first = (Settings(steps=1, start=start, seed=seed) for seed in (2**32 - 1, 0))
    both = diverse_masks(tiny, last, batch, 2)[0]
    alone = diverse_masks(tiny, first, batch, 1)[0, 0]
    away = [np.mean(np.abs(mask - alone)) for mask in both]
    assert away[1] < 0.5 * away[0]  # the same noise, one step in which the masks push one another


def test_padding_moves_no_dropout(tiny):
    photos = np.random.default_rng(0).integers(0, 256, (1, 3, SIZE, SIZE, 3), np.uint8)
    settings = Settings(method="fi_uap", steps=3, dropout=0.1)
    made = [
        diverse_masks(tiny, settings, Batch(np.int32([0]), photos[:, :n], valid), 2)
        for n, valid in ((2, np.ones((1, 2), "f4")), (3, np.float32([[1, 1, 0]])))
    ]
    assert np.mean(np.abs(made[0] - made[1]) > 1e-3) < 0.01
    other = diverse_masks(tiny, settings, Batch(np.int32([1]), photos, np.ones((1, 3), "f4")), 2)
    assert np.mean(np.abs(made[0] - other) > 1e-3) > 0.1


def _features(network, batch, masks):
    """Unit features f32[M,N,D] of the first person's photos under each of their masks."""
    masked = np.clip(batch.photos[0] + masks[0][:, None], 0, 255)
    flat = jnp.asarray(masked.reshape(-1, *masked.shape[2:]))
    features = recognizer.normalize(jax.jit(network.embed)(network.params, flat))
    return np.asarray(features).reshape(*masked.shape[:2], -1)


def test_masks_are_far_from_the_person_and_from_one_another(network, batch):
    settings = Settings(steps=16, initial_steps=0)
    masks = diverse_masks(network, settings, batch, 3)
    assert masks.shape == (2, 3, 112, 112, 3) and np.abs(masks).max() <= settings.epsilon
    clean = _features(network, batch, np.zeros_like(masks[:, :1]))[0]
    features = _features(network, batch, masks)
    assert np.einsum("mnd,nd->mn", features, clean).mean() < 0.5
    seeds = [Settings(steps=16, initial_steps=0, seed=m) for m in range(3)]
    alike = np.concatenate([diverse_masks(network, own, batch, 1) for own in seeds], 1)
    assert _between(features) < _between(_features(network, batch, alike)) - 0.2


def _between(features):
    """Mean cosine of a photo under one mask with itself under another."""
    pairs = itertools.combinations(range(len(features)), 2)
    return np.mean([np.sum(features[a] * features[b], -1).mean() for a, b in pairs])
