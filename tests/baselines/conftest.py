"""A tiny network with two taps, and a few people."""

import jax
import numpy as np
import pytest

from opom_jax import laboratory
from opom_jax.baselines.settings import Settings
from opom_jax.masks.batches import Batch
from opom_jax.networks import recognizer
from tests.tiny import SIZE, Tapped, random_network

PEOPLE, PHOTOS = 4, 3


@pytest.fixture(scope="session")
def network() -> recognizer.Recognizer:
    with pytest.MonkeyPatch.context() as patch:
        return random_network(patch, Tapped)


@pytest.fixture(scope="session")
def people() -> Batch:
    """The second person has one photo less."""
    draw = np.random.default_rng(1)
    photos = draw.integers(0, 256, (PEOPLE, PHOTOS, SIZE, SIZE, 3), np.uint8)
    valid = np.ones((PEOPLE, PHOTOS), np.float32)
    valid[1, 2] = 0
    return Batch(np.arange(PEOPLE, dtype=np.int32), photos, valid)


@pytest.fixture(scope="session")
def tiny_settings():
    """Settings for a handful of small steps."""

    def make(method: str, **changes) -> Settings:
        small = {"steps": 3, "iterations": 5, "epochs": 3, "photos_per_step": 4}
        generator = {"width": 4, "blocks": 1, "learning_rate": 2e-3}
        return Settings(**{"method": method} | small | generator | changes)

    return make


@pytest.fixture(scope="session")
def surrogate() -> recognizer.Recognizer:
    """A trained network of the package."""
    return recognizer.load("zoo:surrogate_softmax")


@pytest.fixture(scope="session")
def photos() -> laboratory.Photos:
    """Four synthetic people."""
    return laboratory.synthetic_photos(4, photos=3, probes=2, distractors=1)


@pytest.fixture(scope="session")
def similarity(surrogate, photos):
    """Masks f32[P,H,W,C] -> mean cosine of other photos of the people before and after."""
    embed = jax.jit(surrogate.embed)

    def features(pictures: np.ndarray) -> np.ndarray:
        found = embed(surrogate.params, pictures.astype(np.float32))
        return np.asarray(recognizer.normalize(found))

    clean = features(photos.probes)
    return lambda made: (clean * features(laboratory.masked_probes(photos, made))).sum(1).mean()
