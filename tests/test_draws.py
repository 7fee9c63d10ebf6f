"""Random arrays are what jax.random gives, however they are drawn."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from opom_jax.draws import drawn
from opom_jax.networks.layers import he_normal


@pytest.mark.parametrize(
    "draw",
    [
        jax.random.bits,
        jax.random.normal,
        partial(jax.random.uniform, minval=-8.0, maxval=8.0),
        nnx.initializers.truncated_normal(0.02),
    ],
)
def test_the_same_bits(draw):
    key, shape = jax.random.key(3), (3, 4, 5)
    np.testing.assert_array_equal(drawn(draw, key, shape), draw(key, shape))
    keys = jax.random.split(key, 2)
    mapped = jax.vmap(lambda k: drawn(draw, k, shape))(keys)
    np.testing.assert_array_equal(mapped, jax.vmap(lambda k: draw(k, shape))(keys))


def test_first_weights_of_a_convolution():
    key, shape = jax.random.key(1), (3, 3, 4, 8)
    wanted = nnx.initializers.he_normal()(key, shape)
    np.testing.assert_allclose(drawn(he_normal(3 * 3 * 4), key, shape), wanted, rtol=1e-6)
