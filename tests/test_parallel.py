"""People over the four virtual devices of the tests: the same masks, and no collective."""

import jax
import numpy as np
import pytest

from opom_jax import parallel
from opom_jax.baselines.fi_uap_all import fi_uap_all
from opom_jax.baselines.gd_uap import gd_uap
from opom_jax.baselines.settings import Settings as BaselineSettings
from opom_jax.masks import generate
from opom_jax.masks.batches import Batch, equal_batches
from opom_jax.masks.diverse import make_diverse
from opom_jax.masks.generate import Settings
from tests.tiny import SIZE, Tapped, random_network

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-", "reduce-scatter", "send(")
SETTINGS = {
    "published": Settings(steps=2, initial_steps=1),
    "momentum and dropout": Settings("fi_uap", steps=2, momentum=1.0, dropout=0.1, start="person"),
    "paper": Settings(steps=2, form="paper", method="affine_hull"),
}


@pytest.fixture(scope="module")
def network():
    with pytest.MonkeyPatch.context() as patch:
        yield random_network(patch, Tapped)


def people(count: int) -> Batch:
    draw = np.random.default_rng(0)
    photos = draw.integers(0, 256, (count, 3, SIZE, SIZE, 3), np.uint8)
    return Batch(np.arange(count, dtype=np.int32), photos, np.ones((count, 3), np.float32))


@pytest.fixture
def one_device(monkeypatch):
    """Hides all devices but one, when called."""
    return lambda: monkeypatch.setattr(jax, "local_device_count", lambda: 1)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_step_holds_no_collective(network, settings):
    ids, photos, valid = parallel.spread(people(8), 4)
    params = parallel.replicated(network.params, ids)
    compiled = generate.generator(network, settings)
    state, clean = compiled.start(params, ids, photos)
    arguments = (params, state, ids, photos, clean, valid, np.int32(0))
    text = compiled.step.lower(*arguments).compile().as_text()
    assert not [name for name in COLLECTIVES if name in text]
    state, metrics = compiled.step(*arguments)
    for array in (*jax.tree.leaves(state), *metrics):
        assert len(array.sharding.device_set) == 4 and len(array) == 8
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {2}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("count, size", [(8, 2), (5, 2), (3, 1), (3, 8)])
def test_devices_change_no_bit(network, settings, count, size, one_device):
    found = generate.make(network, settings, people(count), size)
    one_device()
    wanted = generate.make(network, settings, people(count), size)
    np.testing.assert_array_equal(found.masks, wanted.masks)
    for name in wanted.metrics:
        np.testing.assert_array_equal(found.metrics[name], wanted.metrics[name])


def test_devices_change_no_bit_of_diverse_masks(network, one_device):
    arguments = network, SETTINGS["published"], people(5), 1, 2
    found = make_diverse(*arguments)
    one_device()
    np.testing.assert_array_equal(found, make_diverse(*arguments))


@pytest.mark.parametrize("make, name", [(gd_uap, "gd_uap"), (fi_uap_all, "fi_uap_all")])
def test_devices_change_no_bit_of_a_baseline(network, make, name, one_device):
    settings = BaselineSettings(method=name, iterations=3, steps=3)
    found = make(network, settings, people(6), 2)
    one_device()
    wanted = make(network, settings, people(6), 2)
    np.testing.assert_array_equal(found.masks, wanted.masks)


def test_batches_have_one_shape_on_every_device():
    for count, size, devices in ((8, 2, 4), (9, 2, 4), (3, 2, 2), (1, 5, 1), (3, 1, 3)):
        batches = list(equal_batches(people(count), size))
        assert sum(own for own, _ in batches) == count
        for _, batch in batches:
            assert len(batch.ids.sharding.device_set) == devices
            shards = batch.ids.addressable_shards
            assert {len(shard.data) for shard in shards} == {min(size, count)}
        together = np.concatenate([np.asarray(batch.ids)[:own] for own, batch in batches])
        np.testing.assert_array_equal(together, np.arange(count))


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_are_everybody_once(processes):
    shares = [parallel.Share(k, processes).of(range(5)) for k in range(processes)]
    assert sorted(person for own in shares for person in own) == list(range(5))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
