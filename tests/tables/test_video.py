"""Masks on videos: padding changes no mask, and masks take frames away from the prototype."""

import dataclasses

import numpy as np
import pytest

from opom_jax import laboratory
from opom_jax.errors import InputError
from opom_jax.evaluation.features import extractor
from opom_jax.masks.apply import apply_mask
from opom_jax.masks.generate import Settings
from opom_jax.networks import recognizer
from opom_jax.tables import films, video
from tests.tiny import SIZE, Small, random_network

COUNTS = (1, 2, 5)
BRIEF = Settings(steps=3, initial_steps=2)


@pytest.fixture
def network(monkeypatch):
    return random_network(monkeypatch, Small)


def film(web: int = 5, frames: int = 4, seed: int = 1) -> films.Film:
    draw = np.random.default_rng(seed)
    pictures = draw.integers(0, 256, (3 + web + frames, SIZE, SIZE, 3), np.uint8)
    return films.Film("Nobody", *np.split(pictures, [3, 3 + web]))


@pytest.mark.parametrize("start", ["published", "person"])
@pytest.mark.parametrize("method", ["convex_hull", "affine_hull"])
def test_masks_are_those_of_as_many_photos(network, method, start):
    settings = dataclasses.replace(BRIEF, method=method, start=start)
    nobody = film()
    made = video.masks_by_count(nobody, network, settings, COUNTS, number=4)
    assert made.shape == (len(COUNTS), SIZE, SIZE, 3) and 0 < np.abs(made).max() <= 8
    for mask, count in zip(made, COUNTS, strict=True):
        (alone,) = laboratory.make_masks(network, settings, nobody.web[None, :count], first=4)
        np.testing.assert_allclose(mask, alone, atol=1e-4)
    assert np.abs(made[2] - made[0]).max() > 0.1


def test_masks_of_one_count_after_the_other(network, monkeypatch):
    monkeypatch.setattr(video, "people_that_fit", lambda *given: given[-1])
    nobody = film()
    one, all_at_once = (video.masks_by_count(nobody, network, BRIEF, COUNTS, 0, m) for m in (1, 9))
    np.testing.assert_allclose(one, all_at_once, atol=1e-4)


def test_an_empty_hull_is_refused(network):
    with pytest.raises(InputError, match="Nobody has 1 photos"):
        video.masks_by_count(film(), network, dataclasses.replace(BRIEF, upper=0.6), COUNTS)


def test_similarities_are_cosines_with_the_prototype(network):
    two = [film(5, 4), film(3, 2, seed=2)]
    found = video.similarities(two, network, {"Tiny": network}, BRIEF, COUNTS)
    assert video.possible(two, COUNTS) == (1, 2)
    assert found["Tiny"].shape == (3, 6)
    extract = extractor(network)
    clean = [extract([of.frames]) @ extract([of.prototype]).mean(0) for of in two]
    norms = [np.linalg.norm(extract([of.prototype]).mean(0)) for of in two]
    expected = np.concatenate([a / b for a, b in zip(clean, norms, strict=True)])
    np.testing.assert_allclose(found["Tiny"][0], expected, atol=1e-5)
    assert (np.abs(found["Tiny"][1:] - found["Tiny"][0]).max(1) > 1e-3).all()


def test_too_few_photos_are_refused():
    with pytest.raises(
        InputError, match="fewest photos for masks has 3, and masks are wanted of 5"
    ):
        video.possible([film(5), film(3)], (5,))


def test_a_mask_hides_a_film_from_a_black_box():
    """Better than noise of its strength, and the better the more photos it was made of."""
    (one,) = films.synthetic_films(1, frames=6, prototype=5, web=10, first=60_000)
    (noise,) = laboratory.random_masks(1, 112)
    noisy = one._replace(frames=apply_mask(one.frames, noise))
    surrogate, target = map(recognizer.load, ("zoo:surrogate_arcface", "zoo:target_cosface"))
    targets, counts = {"CosFace": target}, (1, 10)
    found = video.similarities([one, noisy], surrogate, targets, Settings(), counts)
    before, by_one, by_ten = found["CosFace"][:, :6].mean(1)
    under_noise = found["CosFace"][0, 6:].mean()
    assert by_ten < by_one - 0.1 < under_noise - 0.2 and under_noise < before
