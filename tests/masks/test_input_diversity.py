"""Input diversity: torch's interpolate and pad at every side and place, and how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax.masks.transfer import input_diversity

SIDE, SMALLEST = 8, 6
PLACES = [
    (side, top, left)
    for side in range(SMALLEST, SIDE + 1)
    for top in range(SIDE - side + 1)
    for left in range(SIDE - side + 1)
]


def pictures(count: int) -> jax.Array:
    return jnp.asarray(
        np.random.default_rng(0).uniform(1, 255, (count, SIDE, SIDE, 3)), jnp.float32
    )


diverse = jax.jit(input_diversity, static_argnums=3)


@pytest.mark.torch
def test_every_view_is_torchs_at_some_side_and_place_and_all_of_them_come():
    torch = pytest.importorskip("torch")
    images = pictures(300)
    views = np.asarray(diverse(jax.random.key(3), images, 1.0, SMALLEST))
    channels_first = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    wanted = []
    for side, top, left in PLACES:
        small = torch.nn.functional.interpolate(channels_first, (side, side), mode="bilinear")
        around = left, SIDE - side - left, top, SIDE - side - top
        wanted.append(torch.nn.functional.pad(small, around).permute(0, 2, 3, 1).numpy())
    equal = (np.abs(np.stack(wanted) - views[None]) < 1e-3).all((2, 3, 4))
    assert (equal.sum(0) == 1).all()
    sides = np.array([side for side, *_ in PLACES])[equal.argmax(0)]
    assert equal.any(1).all()  # 14 of them
    counts = np.bincount(sides)[SMALLEST:]
    assert (np.abs(counts - 100) < 4 * np.sqrt(300 * 2 / 9)).all()  # binomial


def test_as_often_as_the_probability_says():
    images = pictures(1).repeat(400, 0)
    for probability in (0.0, 0.3, 1.0):
        views = diverse(jax.random.key(0), images, probability, SIDE - 1)
        changed = (np.abs(np.asarray(views - images)) > 0.01).any((1, 2, 3))
        assert abs(changed.mean() - probability / 2) < 0.08  # half of the sides are the whole one
        assert changed.any() == (probability > 0)


def test_draws_of_an_image_do_not_depend_on_those_that_follow():
    images, key = pictures(5), jax.random.key(1)
    views = diverse(key, images, 0.7, SMALLEST)
    np.testing.assert_array_equal(diverse(key, images[:2], 0.7, SMALLEST), views[:2])
    assert (np.asarray(diverse(jax.random.key(2), images, 0.7, SMALLEST)) != views).any()
    same = diverse(key, images[:1].repeat(5, 0), 1.0, SMALLEST)
    assert len(np.unique(np.asarray(same).reshape(5, -1), axis=0)) > 1


def test_gradient_is_the_transpose():
    """A linear map A: <A d, w> = <d, A' w>."""
    images, moved = pictures(2), pictures(4)[2:]
    key, weights = jax.random.key(4), pictures(6)[4:]

    def score(x):
        return jnp.vdot(diverse(key, x, 1.0, SMALLEST), weights)

    gradient = jax.grad(score)(images)
    np.testing.assert_allclose(
        jnp.vdot(gradient, moved), score(images + moved) - score(images), rtol=1e-4
    )
