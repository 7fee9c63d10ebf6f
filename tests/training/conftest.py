"""A network of a few channels, and people who are coloured blobs."""

import numpy as np
import pytest
from flax import nnx

from opom_jax.networks.layers import Conv, FlatDense, PReLU, batch_norm
from opom_jax.networks.registry import NETWORKS, Spec
from opom_jax.training.sources import ArraySource, Data

SIZE, PHOTOS = 16, 6
PEOPLE, STRANGERS = 4, 3


class Tiny(nnx.Module):
    """Two strided convolutions with batch norms; 16 x 16 pixels -> 8 numbers."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = Conv(3, 4, 3, stride=2, padding=1, rngs=rngs)
        self.bn1, self.prelu = batch_norm(4, rngs=rngs), PReLU(4, rngs=rngs)
        self.conv2 = Conv(4, 6, 3, stride=2, padding=1, rngs=rngs)
        self.head_bn, self.head = batch_norm(6, rngs=rngs), FlatDense(4, 4, 6, 8, rngs=rngs)
        self.embedding_bn = batch_norm(8, rngs=rngs)

    def __call__(self, x):
        x = self.conv2(self.prelu(self.bn1(self.conv1(x))))
        return self.embedding_bn(self.head(self.head_bn(x))), {}


TINY = Spec(Tiny, embedding=8, layout="ir", size=SIZE)


@pytest.fixture
def tiny(monkeypatch) -> str:
    """The name of a tiny network in the registry."""
    monkeypatch.setitem(NETWORKS, "tiny", TINY)
    return "tiny"


def draw_people(count: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """u8[P * N,16,16,3] and i32[P * N]: a disk of the person's colour at the person's place."""
    images, y, x = [], *np.mgrid[:SIZE, :SIZE]
    for person in range(first, first + count):
        rng = np.random.default_rng(person)
        color, place = rng.integers(0, 256, 3), rng.uniform(4, 12, 2)
        for _ in range(PHOTOS):
            top, left = place + rng.uniform(-1, 1, 2)
            disk = (y - top) ** 2 + (x - left) ** 2 < 16
            image = np.where(disk[..., None], color, 128) + rng.normal(0, 8, (SIZE, SIZE, 3))
            images.append(np.clip(image, 0, 255).astype(np.uint8))
    return np.stack(images), np.repeat(np.arange(count, dtype=np.int32), PHOTOS)


@pytest.fixture(scope="session")
def blobs() -> Data:
    """Four people to train on and three others."""
    train = ArraySource(*draw_people(PEOPLE))
    return Data(train, ArraySource(*draw_people(STRANGERS, PEOPLE)), PEOPLE, {"blobs": PEOPLE})
