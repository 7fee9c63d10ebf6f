"""Features of many images: in order, the same on any number of devices."""

import jax
import numpy as np
import pytest

from opom_jax.evaluation import features
from tests.tiny import SIZE, Small, random_network


@pytest.fixture
def network(monkeypatch):
    return random_network(monkeypatch, Small)


@pytest.fixture
def few(monkeypatch):
    """Batches of three."""
    monkeypatch.setattr(features, "BATCH", 3)


@pytest.mark.parametrize("count", [0, 1, 12, 29])
def test_devices_change_no_bit(network, few, monkeypatch, count):
    images = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    batches = [images[k : k + 3] for k in range(0, count, 3)]
    found = features.extractor(network)(batches)
    assert found.shape == (count, 8) and found.dtype == np.float32
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    np.testing.assert_array_equal(found, features.extractor(network)(batches))
    for k in range(count):
        alone = features.extractor(network)([images[k : k + 1]])
        np.testing.assert_allclose(found[k], alone[0], atol=1e-6)
