"""Networks so small that they compile in a second, with random weights."""

import numpy as np
from flax import nnx

from opom_jax.networks import recognizer
from opom_jax.networks.layers import Conv, FlatDense, PReLU
from opom_jax.networks.recognizer import Recognizer
from opom_jax.networks.registry import NETWORKS, Spec

SIZE = 16


class Small(nnx.Module):
    """16 x 16 pixels -> 8 numbers."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = Conv(3, 6, 3, stride=2, padding=1, rngs=rngs)
        self.prelu = PReLU(6, rngs=rngs)
        self.head = FlatDense(8, 8, 6, 8, rngs=rngs)

    def __call__(self, x):
        return self.head(self.prelu(self.conv(x))), {}


class Tapped(nnx.Module):
    """16 x 16 pixels -> 8 numbers, and two taps."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = Conv(3, 4, 3, stride=2, padding=1, rngs=rngs)
        self.prelu = PReLU(4, rngs=rngs)
        self.second = Conv(4, 6, 3, stride=2, padding=1, rngs=rngs)
        self.head = FlatDense(4, 4, 6, 8, rngs=rngs)

    def __call__(self, x):
        first = self.prelu(self.first(x))
        second = self.second(first)
        return self.head(second), {"first": first, "second": second}


def random_network(patch, family: type[nnx.Module], seed: int = 0) -> Recognizer:
    """A network of a family that is in the registry, as "tiny", while `patch` lasts."""
    patch.setitem(NETWORKS, "tiny", Spec(family, embedding=8, layout="", size=SIZE))
    draw = np.random.default_rng(seed)
    shapes = recognizer.abstract_params("tiny")
    arrays = {k: draw.normal(0, 0.3, v.shape).astype(np.float32) for k, v in shapes.items()}
    return recognizer.recognizer("tiny", arrays)
