"""FI-UAP-all: FI-UAP with one person, one mask for several, whatever the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax import laboratory
from opom_jax.baselines.fi_uap_all import fi_uap_all
from opom_jax.baselines.settings import Settings
from opom_jax.masks import generate as masks
from opom_jax.masks.batches import Batch
from opom_jax.networks.recognizer import normalize


def first(people: Batch, count: int) -> Batch:
    return Batch(*(array[:count] for array in people))


@pytest.mark.parametrize("form", ["published", "paper"])
def test_one_person_gets_the_mask_of_fi_uap(network, people, tiny_settings, form):
    alone = first(people, 1)
    settings = tiny_settings("fi_uap_all", form=form)
    made = fi_uap_all(network, settings, alone, 1)
    compiled = masks.generator(network, settings.fi_uap())
    wanted, metrics = masks.generate(compiled, network.params, settings.fi_uap(), alone)
    np.testing.assert_allclose(made.masks, wanted, atol=2e-4)
    np.testing.assert_allclose(made.metrics["objective"], metrics.objective, rtol=1e-4)
    np.testing.assert_allclose(made.metrics["distance"], metrics.distance, rtol=1e-4)


@pytest.mark.parametrize("form", ["published", "paper"])
def test_a_step_follows_the_sign_of_the_sum_over_all_photos(network, people, tiny_settings, form):
    """Eq. 17 over everybody, differentiated as a whole."""
    made = fi_uap_all(network, tiny_settings("fi_uap_all", form=form, steps=1), people, 4)
    noise = masks.published_noise(masks.Settings(), people.photos.shape[1:])
    noise = noise if form == "published" else noise[:1]
    rows = people.valid > 0
    images = people.photos[rows].astype(np.float32)
    start = np.broadcast_to(noise, people.photos.shape)[rows]

    def objective(mask):
        def features(x):
            return normalize(network.embed(network.params, x))

        moved = features(images + start + mask[None]) - features(images)
        power = 2 if form == "published" else 1
        return jnp.sum(jnp.linalg.norm(moved, axis=-1) ** power)

    gradient = jax.jit(jax.grad(objective))(jnp.zeros_like(images[0]))
    mean = start.mean(0) if form == "published" else start[0]
    wanted = np.clip(mean + np.sign(gradient), -8, 8)
    assert np.mean(np.abs(made.masks[0] - wanted) > 1e-3) < 0.01


def test_one_mask_for_everybody_whatever_the_batches(network, people, tiny_settings):
    settings = tiny_settings("fi_uap_all")
    together = fi_uap_all(network, settings, people, 100)
    assert together.masks.shape == (4, 16, 16, 3) and 0 < np.abs(together.masks).max() <= 8
    assert (together.masks == together.masks[0]).all()
    assert together.metrics["objective"].shape == (4, 3)
    rounds = []
    report = lambda done, total: rounds.append((done, total))  # noqa: E731
    apart = fi_uap_all(network, settings, people, 3, progress=report)
    assert rounds == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(apart.masks, together.masks)


def test_photos_that_do_not_count_change_nothing(network, people, tiny_settings):
    settings = tiny_settings("fi_uap_all")
    other = people.photos.copy()
    other[1, 2] = 7
    found = fi_uap_all(network, settings, people._replace(photos=other), 2)
    np.testing.assert_array_equal(found.masks, fi_uap_all(network, settings, people, 2).masks)


def test_hides_people_of_other_photos(surrogate, photos, similarity):
    settings = Settings(method="fi_uap_all", steps=8)
    made = fi_uap_all(surrogate, settings, laboratory.everybody(photos.train), 4)
    noise = laboratory.random_masks(4, 112)
    assert similarity(made.masks) < 0.75 < 0.95 < similarity(noise)
