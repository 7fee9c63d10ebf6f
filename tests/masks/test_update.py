"""The update rules: the published one by hand, the paper's, momentum, cropped columns, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax.masks.apply import apply_mask
from opom_jax.masks.update import Rule, init, update

SHAPE = (3, 4, 5, 3)


def setting(form="published", decay=0.0, epsilon=8.0):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, SHAPE).astype(np.float32)
    noise = rng.uniform(-epsilon, epsilon, SHAPE).astype(np.float32)
    return Rule(epsilon, 1.0, decay, form), jnp.asarray(images), jnp.asarray(noise), rng


def test_published_start_keeps_a_noise_a_photo_and_does_not_clip():
    rule, images, noise, _ = setting()
    state = init(rule, images, noise)
    np.testing.assert_array_equal(state.masked, images + noise)
    assert state.masked.min() < 0 and state.masked.max() > 255


def test_published_step_is_the_mean_over_photos_of_what_clipping_left():
    rule, images, noise, rng = setting()
    state, valid = init(rule, images, noise), jnp.ones(3)
    for _ in range(4):
        gradient = rng.standard_normal(SHAPE).astype(np.float32)
        moved = np.asarray(state.masked) + np.sign(gradient.mean(0))
        mask = np.clip((moved - images).mean(0), -8, 8)
        state = update(rule, state, gradient, images, valid)
        np.testing.assert_allclose(state.mask, mask, atol=2e-4)
        clipped = np.clip(np.asarray(images) + mask, 0, 255)
        np.testing.assert_allclose(state.masked, clipped, atol=2e-4)


def test_paper_step_moves_one_mask_by_whole_steps_and_does_not_clip_photos():
    rule, images, noise, rng = setting("paper")
    state = init(rule, images, noise)
    np.testing.assert_array_equal(state.mask, noise[0])
    gradient = rng.standard_normal(SHAPE).astype(np.float32)
    after = update(rule, state, gradient, images, jnp.ones(3))
    wanted = np.clip(noise[0] + np.sign(gradient.sum(0)), -8, 8)
    np.testing.assert_allclose(after.mask, wanted, atol=1e-6)
    np.testing.assert_allclose(after.masked, images + wanted[None], atol=1e-4)


def test_published_momentum_divides_by_the_mean_of_each_column_and_signs_each_photo():
    rule, images, noise, rng = setting(decay=1.0)
    state, valid = init(rule, images, noise), jnp.ones(3)
    total = np.zeros(SHAPE, np.float32)
    for _ in range(3):
        gradient = rng.standard_normal(SHAPE).astype(np.float32)
        total = total + gradient / np.abs(gradient).mean((0, 1, 3), keepdims=True)
        moved = np.asarray(state.masked) + np.sign(total)
        state = update(rule, state, gradient, images, valid)
        np.testing.assert_allclose(state.momentum, total, atol=1e-4)
        np.testing.assert_allclose(state.mask, np.clip((moved - images).mean(0), -8, 8), atol=2e-4)


def test_paper_momentum_divides_each_photos_gradient_by_its_l1_norm():
    rule, images, noise, rng = setting("paper", decay=0.5)
    gradient = rng.standard_normal(SHAPE).astype(np.float32)
    state = init(rule, images, noise)
    once = update(rule, state, gradient, images, jnp.ones(3))
    twice = update(rule, once, gradient, images, jnp.ones(3))
    scaled = gradient / np.abs(gradient).sum((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(twice.momentum, 1.5 * scaled, rtol=1e-5)


@pytest.mark.parametrize("form", ["published", "paper"])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_columns_without_gradient_keep_their_noise_and_stay_finite(form, decay):
    """A network that crops columns gives them none; the published momentum divides 0 by 0."""
    rule, images, noise, rng = setting(form, decay)
    images = jnp.clip(images, 20, 230)  # so that clipping to 0..255 changes nothing
    gradient = rng.standard_normal(SHAPE).astype(np.float32)
    gradient[:, :, :2] = 0
    state = init(rule, images, noise)
    start = state.mask if form == "paper" else noise.mean(0)
    for _ in range(3):
        state = update(rule, state, gradient, images, jnp.ones(3))
    assert np.isfinite(state.mask).all()
    np.testing.assert_allclose(state.mask[:, :2], start[:, :2], atol=2e-4)


@pytest.mark.parametrize("form", ["published", "paper"])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_padding_changes_nothing(form, decay):
    rule, images, noise, rng = setting(form, decay)
    gradient = rng.standard_normal(SHAPE).astype(np.float32)
    extra = jnp.concatenate([images, images[:1]]), jnp.concatenate([noise, noise[:1]])
    alone, padded = init(rule, images, noise), init(rule, *extra)
    for _ in range(2):
        alone = update(rule, alone, gradient, images, jnp.ones(3))
        wrong = np.concatenate([gradient, 9 * gradient[:1]])
        padded = update(rule, padded, wrong, extra[0], jnp.array([1.0, 1, 1, 0]))
    np.testing.assert_allclose(padded.mask, alone.mask, atol=2e-4)


def test_mask_stays_within_epsilon():
    rule, images, noise, rng = setting(epsilon=2.0)
    gradient = rng.standard_normal(SHAPE).astype(np.float32)
    state = init(rule, images, noise)
    for _ in range(6):
        state = update(rule, state, gradient, images, jnp.ones(3))
    assert np.abs(state.mask).max() <= 2.0


def test_masks_replayed_from_stored_gradients_give_the_same_stored_pixels(goldens):
    """Rounding of the mean matters: probes are truncated to whole grey levels."""
    run = np.load(goldens / "opom_fim_9_convexhull.npz")
    images = np.load(goldens / "images.npz")["images112"][0].astype(np.float32)
    noise = np.load(goldens / "opom_noise.npz")["noise"].transpose(0, 2, 3, 1)
    rule, valid = Rule(8.0, 1.0, 0.0, "published"), jnp.ones(10)
    step = jax.jit(lambda s, g: update(rule, s, g, jnp.asarray(images), valid))
    state = init(rule, jnp.asarray(images), jnp.asarray(noise))
    for gradient, mask in zip(run["grad_mean"][0], run["eta"][0], strict=True):
        everywhere = np.broadcast_to(gradient.transpose(1, 2, 0), images.shape)
        state = step(state, jnp.asarray(everywhere))
        ours = apply_mask(images.astype(np.uint8), np.asarray(state.mask))
        np.testing.assert_array_equal(
            ours, apply_mask(images.astype(np.uint8), mask.transpose(1, 2, 0))
        )
