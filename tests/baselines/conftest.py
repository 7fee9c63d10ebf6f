"""A tiny network with two taps, and a few people."""

import jax
import numpy as np
import pytest
from flax import nnx

from opom_jax import laboratory
from opom_jax.baselines.settings import Settings
from opom_jax.masks.generate import Batch
from opom_jax.networks import recognizer
from opom_jax.networks.layers import Conv, FlatDense, PReLU
from opom_jax.networks.registry import NETWORKS, Spec

SIZE, PEOPLE, PHOTOS = 16, 4, 3


class Tiny(nnx.Module):
    """16 x 16 pixels -> 8 numbers."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = Conv(3, 4, 3, stride=2, padding=1, rngs=rngs)
        self.prelu = PReLU(4, rngs=rngs)
        self.second = Conv(4, 6, 3, stride=2, padding=1, rngs=rngs)
        self.head = FlatDense(4, 4, 6, 8, rngs=rngs)

    def __call__(self, x):
        first = self.prelu(self.first(x))
        second = self.second(first)
        return self.head(second), {"first": first, "second": second}


@pytest.fixture(scope="session")
def network() -> recognizer.Recognizer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", Spec(Tiny, embedding=8, layout="", size=SIZE))
        draw = np.random.default_rng(0)
        shapes = recognizer.abstract_params("tiny")
        arrays = {k: draw.normal(0, 0.3, v.shape).astype(np.float32) for k, v in shapes.items()}
        return recognizer.recognizer("tiny", arrays)


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
