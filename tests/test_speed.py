"""What `bench` measures: operations a person and step; the cache is left as it was."""

import dataclasses

import jax
import numpy as np
import pytest

from opom_jax import speed
from opom_jax.errors import InputError
from opom_jax.masks import generate as masks
from tests.tiny import Small, random_network

PHOTOS = 3


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setitem(speed.SIDE, "cpu", 64)
    return random_network(monkeypatch, Small)


def measured(network, people=2, steps=2, method="fi_uap"):
    settings = masks.Settings(method=method, steps=steps)
    batch = speed.random_people(network, people, PHOTOS)
    return speed.measure(network, settings, batch, people, "float32", 1)


def test_operations_are_of_all_people_and_steps(network):
    one, two, three = (measured(network, *of).operations for of in ((1, 1), (2, 1), (1, 2)))
    assert two == 2 * one
    image = jax.ShapeDtypeStruct((PHOTOS, 16, 16, 3), np.float32)
    pass_ = jax.jit(network.embed).lower(network.params, image).cost_analysis()["flops"]
    step = three - one
    assert 1.8 * pass_ < step < 3 * pass_  # forwards and backwards, and the rest of the step
    assert 0.8 * pass_ < one - step < 2 * pass_  # the clean features


def test_cache_as_before(network):
    seen = measured(network)
    assert jax.config.jax_enable_compilation_cache
    assert seen.compile_seconds >= 0 and min(seen[1:]) > 0


def test_people_who_do_not_fit(network, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(masks, "generate", full)
    with pytest.raises(InputError, match="2 people at once do not fit .* take fewer"):
        measured(network)
    assert jax.config.jax_enable_compilation_cache


def test_random_network_is_the_architecture(network):
    made = speed.random_network("tiny", "float32")
    shapes = (jax.tree.map(np.shape, x.params) for x in (made, network))
    assert next(shapes) == next(shapes)
    assert dataclasses.asdict(made.spec) == dataclasses.asdict(network.spec)
