"""GD-UAP: its objective, its steps beside torch, its end."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from opom_jax import laboratory, parallel
from opom_jax.baselines import checks
from opom_jax.baselines import gd_uap as module
from opom_jax.baselines.gd_uap import activations, gd_uap
from opom_jax.baselines.settings import Settings
from opom_jax.errors import InputError
from opom_jax.masks import generate as masks
from opom_jax.masks.batches import Batch
from opom_jax.methods import METHODS
from opom_jax.networks import recognizer
from opom_jax.networks.registry import Spec


def test_objective_is_equation_16():
    draw = np.random.default_rng(0)
    taps = {k: draw.normal(size=(3, 2, 2, c)).astype(np.float32) for k, c in (("a", 2), ("b", 5))}
    product = [np.prod([np.linalg.norm(tap[i]) for tap in taps.values()]) for i in range(3)]
    valid = np.array([1, 0, 1], np.float32)
    wanted = np.log(product[0]) + np.log(product[2])
    np.testing.assert_allclose(activations(taps, valid), wanted, rtol=1e-6)
    taps["b"][0] = 0
    value, slope = jax.value_and_grad(activations)(taps, valid)
    assert np.isfinite(value) and all(np.isfinite(s).all() for s in slope.values())


@pytest.mark.torch
def test_steps_beside_torch(network, people, tiny_settings):
    """The tiny network written in torch, Adam on the clipped noise."""
    torch = pytest.importorskip("torch")
    params = {
        path: torch.tensor(np.asarray(v[...]))
        for path, v in recognizer.flat(network.params).items()
    }
    images = torch.tensor(people.photos[0].astype(np.float32)).permute(0, 3, 1, 2)
    noise = torch.tensor(masks.published_noise(masks.Settings(), (1, 16, 16, 3))[0])
    noise.requires_grad_(True)
    adam = torch.optim.Adam([noise], lr=0.1)

    def layer(x, name):
        kernel = params[f"{name}/kernel"].permute(3, 2, 0, 1)
        return torch.nn.functional.conv2d(x, kernel, stride=2, padding=1)

    for _ in range(5):
        x = (images + noise.clamp(-8, 8).permute(2, 0, 1) - 127.5) / 128
        first = torch.nn.functional.prelu(layer(x, "first"), params["prelu/slope"])
        layers = (first, layer(first, "second"))
        loss = -sum(torch.log(torch.linalg.vector_norm(y, dim=(1, 2, 3))).sum() for y in layers)
        adam.zero_grad()
        loss.backward()
        adam.step()
    made = gd_uap(network, tiny_settings("gd_uap"), people, 2)
    np.testing.assert_allclose(made.masks[0], noise.detach().clamp(-8, 8), atol=2e-3)
    assert made.metrics["iterations"].tolist() == [5, 5, 5, 5]


def test_masks_do_not_depend_on_batches_or_padding(network, people, tiny_settings, monkeypatch):
    settings = tiny_settings("gd_uap", start="person")
    together = gd_uap(network, settings, people, 100)
    assert together.masks.shape == (4, 16, 16, 3) and 4 < np.abs(together.masks).max() <= 8
    other = people.photos.copy()
    other[1, 2] = 7
    done = []
    report = lambda *now: done.append(now)  # noqa: E731
    monkeypatch.setattr(parallel, "devices_for", lambda people, size: 1)
    apart = gd_uap(network, settings, people._replace(photos=other), 3, progress=report)
    assert done == [(3, 4), (4, 4)]
    np.testing.assert_allclose(apart.masks, together.masks, atol=1e-4)
    assert not np.allclose(together.masks[0], together.masks[1], atol=1)


def test_ends_after_checks_without_a_better_one(network, people, tiny_settings, monkeypatch):
    """With a check a step; afterwards nothing of the state moves."""
    for name, value in (("SOONEST", 0), ("LATEST", 1), ("PATIENCE", 2)):
        monkeypatch.setattr(checks, name, value)
    monkeypatch.setattr(module, "ASKED", 1)
    module._step.cache_clear()
    try:
        made = gd_uap(network, tiny_settings("gd_uap", iterations=3000), people, 4)
        used = made.metrics["iterations"]
        assert (used < 3000).all() and len(set(used.tolist())) > 1
        for k in range(4):  # alone it ends with the same mask
            alone = Batch(*(array[k : k + 1] for array in people))
            again = gd_uap(network, tiny_settings("gd_uap", iterations=3000), alone, 1)
            assert again.metrics["iterations"] == used[k]
            np.testing.assert_allclose(again.masks[0], made.masks[k], atol=1e-3)
    finally:
        module._step.cache_clear()


def test_a_network_without_taps_is_refused(network, people, tiny_settings):
    class Bare(nnx.Module):
        def __init__(self, rngs):
            pass

        def __call__(self, x):
            return x.mean((1, 2)), {}

    spec = Spec(Bare, embedding=3, layout="", size=16)
    bare = network._replace(name="bare", spec=spec, params=nnx.State({}))
    settings, refused = tiny_settings("gd_uap"), "bare has no taps, which gd_uap needs"
    with pytest.raises(InputError, match=refused):
        gd_uap(bare, settings, people, 4)
    with pytest.raises(InputError, match=refused):  # before photos are read
        METHODS["gd_uap"].check(bare, settings)
    METHODS["fi_uap_all"].check(bare, tiny_settings("fi_uap_all"))
    METHODS["gd_uap"].check(network, settings)


def test_raises_activations_and_lowers_similarity(surrogate, photos, similarity):
    """Little, as in the paper's tables; noise alone leaves 0.99."""
    settings = Settings(method="gd_uap", iterations=60)
    everybody = laboratory.everybody(photos.train)
    made = gd_uap(surrogate, settings, everybody, 4)
    begun = gd_uap(surrogate, dataclasses.replace(settings, iterations=1), everybody, 4)
    assert (made.metrics["objective"] > begun.metrics["objective"] + 0.5).all()
    assert similarity(made.masks) < similarity(laboratory.random_masks(4, 112)) - 0.02
