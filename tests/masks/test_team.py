"""Several surrogates attacked together."""

import jax
import numpy as np
import pytest
from flax import nnx

from opom_jax.masks import generate
from opom_jax.masks.batches import Batch
from opom_jax.masks.generate import Settings
from opom_jax.masks.memory import bytes_per_person
from opom_jax.masks.update import init, update
from opom_jax.networks import recognizer
from opom_jax.networks.layers import FlatDense
from opom_jax.networks.recognizer import Team, normalize
from opom_jax.networks.registry import NETWORKS, Spec
from tests.tiny import SIZE, Small, random_network

SETTINGS = {
    "published": Settings(steps=3, initial_steps=1),
    "paper": Settings(steps=3, form="paper", method="fi_uap", start="person"),
}


class Short(nnx.Module):
    """16 x 16 pixels -> 5 numbers."""

    def __init__(self, rngs: nnx.Rngs):
        self.head = FlatDense(SIZE, SIZE, 3, 5, rngs=rngs)

    def __call__(self, x):
        return self.head(x), {}


@pytest.fixture(scope="module")
def members():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "short", Spec(Short, embedding=5, layout="", size=SIZE))
        draw = np.random.default_rng(1)
        shapes = recognizer.abstract_params("short")
        arrays = {k: draw.normal(0, 0.3, v.shape).astype(np.float32) for k, v in shapes.items()}
        yield random_network(patch, Small), recognizer.recognizer("short", arrays)


@pytest.fixture(scope="module")
def people() -> Batch:
    photos = np.random.default_rng(2).integers(0, 256, (3, 4, SIZE, SIZE, 3), np.uint8)
    return Batch(np.arange(3, dtype=np.int32), photos, np.ones((3, 4), np.float32))


def make(network, settings: Settings, people: Batch, size: int = 3):
    return generate.make(network, settings, people, size)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_team_of_one_is_that_one(members, people, settings):
    found, wanted = (make(own, settings, people) for own in (Team(members[:1]), members[0]))
    np.testing.assert_array_equal(found.masks, wanted.masks)
    for name, values in wanted.metrics.items():
        np.testing.assert_array_equal(found.metrics[name], values)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_objective_is_the_sum_and_the_distance_the_mean(members, people, settings):
    team = make(Team(members), settings, people).metrics
    alone = [make(own, settings, people).metrics for own in members]
    for name, by in (("objective", 1), ("distance", 2)):  # all start from the same noise
        wanted = sum(metrics[name][:, 0] for metrics in alone) / by
        np.testing.assert_allclose(team[name][:, 0], wanted, rtol=1e-5)
        assert not np.allclose(team[name][:, 2], sum(m[name][:, 2] for m in alone) / by, 1e-5)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_step_goes_up_the_sum_of_the_gradients(members, people, settings):
    one_step = Settings(**vars(settings) | {"steps": 1})
    found = make(Team(members), one_step, people).masks
    slope = jax.jit(generate.loss_and_gradient, static_argnums=(0, 1))
    for k in range(3):
        photos, valid = people.photos[k].astype(np.float32), people.valid[k]
        noise = generate.published_noise(settings, photos.shape)
        if settings.start == "person":
            noise = generate.person_noise(settings, np.int32(k), photos.shape)
        state = init(generate.rule(settings), photos, noise)
        gradient = 0
        for own in members:
            clean = normalize(jax.jit(own.embed)(own.params, photos))
            given = own.params, state.masked, clean, valid, np.int32(0)
            gradient += slope(own.embed, settings, *given)[1]
        wanted = update(generate.rule(settings), state, gradient, photos, valid).mask
        np.testing.assert_allclose(found[k], wanted, atol=1e-5)


def test_with_dropout_every_member_has_draws_of_its_own(members, people):
    settings = Settings(method="fi_uap", steps=1, dropout=0.3)
    first = members[0]
    alone = make(first, settings, people).metrics["objective"]
    twins = make(Team((first, first)), settings, people).metrics["objective"]
    assert np.isfinite(twins).all() and np.all(np.abs(twins - 2 * alone) > 1e-6)


def test_batches_and_devices_change_nothing(members, people, monkeypatch):
    settings = SETTINGS["published"]
    found = make(Team(members), settings, people, 1).masks
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    np.testing.assert_array_equal(found, make(Team(members), settings, people, 1).masks)


def test_memory_is_that_of_all_members(members):
    one, two, images = members[0], Team((members[0], members[0])), 5 * 4 * SIZE * SIZE * 3 * 4
    kept = [bytes_per_person(own, 4, SIZE) - images for own in (one, two)]
    assert kept[1] == 2 * kept[0] > 0
