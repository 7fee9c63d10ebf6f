"""Figures of known people: by hand on few features, and preprocessings in disguise."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax.evaluation.separation import FAR, Spread, disguised, separation
from opom_jax.networks.registry import NETWORKS


def unit(angles) -> np.ndarray:
    """Features in the plane."""
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_by_hand():
    """Person 0 at 0 and 60 degrees, person 1 at 90 and 100: 60 is nearer to 90 than to 0."""
    found = separation(unit(np.radians([0, 60, 90, 100])), np.array([0, 0, 1, 1]))
    assert (found.people, found.photos, found.probes) == (2, 4, 2)
    same = np.cos(np.radians([60, 10]))
    other = np.cos(np.radians([90, 100, 30, 40]))
    assert found.rank_1 == 0.5
    assert found.tar == np.mean(same > np.quantile(other, 1 - FAR)) == 0.5
    for spread, cosines in ((found.same, same), (found.other, other)):
        wanted = Spread(cosines.mean(), *np.quantile(cosines, [0.05, 0.95]))
        np.testing.assert_allclose(spread, wanted, atol=1e-6)
    deviation = np.sqrt((same.var() + other.var()) / 2)
    assert found.margin == pytest.approx((same.mean() - other.mean()) / deviation, rel=1e-5)


def test_people_in_any_order_and_with_one_photo():
    angles, labels = np.radians([5, 120, 0, 125, 240]), np.array([7, 2, 7, 2, 9])
    found = separation(unit(angles), labels)
    assert (found.people, found.probes, found.rank_1, found.tar) == (3, 2, 1, 1)
    assert not found.suspicious


def test_networks_that_see_nothing_are_suspicious():
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 5)
    noise = draw.normal(size=(100, 8)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    alike = np.ones_like(noise) / np.sqrt(np.float32(8))
    for features in (noise, alike, np.full_like(noise, np.nan)):
        assert separation(features, labels).suspicious


@pytest.mark.parametrize("name", ["ir_50", "mobilefacenet_xiaoccer", "mobilefacenet_foamliu"])
@pytest.mark.parametrize("own", ["RGB", "BGR"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_disguise(name, own, channels):
    """Through the network's own preprocessing, other images come out as with the other one."""
    spec = dataclasses.replace(NETWORKS[name], channels=own)
    other = dataclasses.replace(
        spec, channels=channels, mean=(1.0, 2.0, 3.0), scale=(0.1, 0.2, 0.3)
    )
    photos = np.random.default_rng(0).integers(0, 256, (2, 100, 100, 3), np.uint8)
    seen = disguised(photos, spec, other)
    assert seen.dtype == np.float32
    wanted = other.preprocess(jnp.asarray(photos, jnp.float32))
    np.testing.assert_allclose(spec.preprocess(jnp.asarray(seen)), wanted, atol=1e-3)
