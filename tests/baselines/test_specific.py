"""Image-specific masks: objectives and steps against torch, the ball, zoo networks, batches."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax import laboratory
from opom_jax.baselines import specific
from opom_jax.baselines.specific_objectives import (
    Scene,
    feature_distance,
    lowkey,
    smooth,
    ssim_distance,
)
from opom_jax.data import synthetic
from opom_jax.evaluation.features import extractor
from opom_jax.evaluation.quality import ssim
from opom_jax.masks import generate
from opom_jax.masks.apply import apply_mask
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import Recognizer

SIDE, FEATURES = 14, 5


def embed(weights: jax.Array, images: jax.Array) -> jax.Array:
    return jnp.tanh(images.reshape(len(images), -1) / 255 @ weights)


def tiny(seed: int) -> Recognizer:
    """A network of one layer."""
    weights = np.random.default_rng(seed).normal(0, 0.1, (SIDE * SIDE * 3, FEATURES))
    spec: Any = None
    return Recognizer("tiny", spec, jnp.asarray(weights, jnp.float32), embed, "")


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)


def scene_of(networks: list[Recognizer], photo: np.ndarray) -> tuple[list, Scene, jax.Array]:
    bound = [partial(network.embed, network.params) for network in networks]
    x = jnp.asarray(photo, jnp.float32)
    noise = np.random.default_rng(2).uniform(-8, 8, photo.shape)
    scene = Scene(x, tuple(f(x[None])[0] for f in bound), jax.random.key(0))
    return bound, scene, x + jnp.asarray(noise, jnp.float32)


def torch_lowkey(torch, weights, x, moved):
    """The formula with torch's pad and convolution in float64, without the perceptual term."""
    offsets = torch.arange(7, dtype=torch.float64) - 3
    bell = torch.exp(-(offsets**2) / (2 * 3.0**2))
    window = torch.outer(bell, bell)
    window = (window / window.sum()).expand(3, 1, 7, 7)
    padded = torch.nn.functional.pad(moved.permute(2, 0, 1)[None], (3, 3, 3, 3), mode="reflect")
    blurred = torch.nn.functional.conv2d(padded, window, groups=3)[0].permute(1, 2, 0)
    value = 0
    for w in weights:
        clean, plain, soft = (torch.tanh(v.reshape(-1) / 255 @ w) for v in (x, moved, blurred))
        squares = ((plain - clean) ** 2).sum() + ((soft - clean) ** 2).sum()
        value = value + squares / FEATURES / clean.norm() / (2 * len(weights))
    return value


def torch_distance(torch, weights, x, moved):
    unit = torch.nn.functional.normalize
    value = 0
    for w in weights:
        clean, plain = (unit(torch.tanh(v.reshape(-1) / 255 @ w), dim=0) for v in (x, moved))
        value = value + ((plain - clean) ** 2).sum() / len(weights)
    return value


@pytest.mark.torch
@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(feature_distance, torch_distance), (lowkey(lambda x, moved: 0.0 * x.sum()), torch_lowkey)],
)
def test_objectives_and_their_gradients_are_torchs(ours, theirs, seeds, photos):
    torch = pytest.importorskip("torch")
    networks = [tiny(seed) for seed in seeds]
    bound, scene, masked = scene_of(networks, photos[0])
    value, gradient = jax.value_and_grad(lambda m: ours(bound, scene, m))(masked)
    weights = [torch.from_numpy(np.array(n.params, np.float64)) for n in networks]
    moved = torch.from_numpy(np.array(masked, np.float64)).requires_grad_()
    wanted = theirs(torch, weights, torch.from_numpy(photos[0].astype(np.float64)), moved)
    wanted.backward()
    assert float(value) == pytest.approx(wanted.item(), rel=1e-4)
    size = np.abs(moved.grad.numpy()).max()
    np.testing.assert_allclose(gradient, moved.grad.numpy(), atol=1e-4 * size)


def test_perceptual_distance_is_taken_off(photos):
    photo = photos[0] // 8 + 100  # noise shows on a photo with little contrast
    bound, scene, masked = scene_of([tiny(1)], photo)
    without, with_it = (lowkey(ssim_distance, w)(bound, scene, masked) for w in (0.0, 0.2))
    wanted = 1 - ssim(photo, np.asarray(masked))
    assert float(without - with_it) == pytest.approx(0.2 * wanted, abs=1e-5)
    assert 0.01 < wanted < 1


def test_smoothing_keeps_flat_photos_and_means():
    flat = jnp.full((SIDE, SIDE, 3), 77.0)
    np.testing.assert_allclose(smooth(flat), flat, rtol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_steps_are_those_of_a_torch_loop(decay, photos):
    torch = pytest.importorskip("torch")
    network = tiny(1)
    attack = dataclasses.replace(specific.METHODS["fim"], decay=decay, steps=3, step_size=2.0)
    start = specific.image_masks([network], dataclasses.replace(attack, steps=0), photos[:1])[0]
    assert np.abs(start).max() <= 8 and start.std() == pytest.approx(8 / 3**0.5, rel=0.1)
    x = torch.from_numpy(photos[0].astype(np.float64))
    weights = [torch.from_numpy(np.array(network.params, np.float64))]
    moved, momentum = x + torch.from_numpy(start.astype(np.float64)), 0
    for _ in range(3):
        moved = moved.detach().requires_grad_()
        torch_distance(torch, weights, x, moved).backward()
        momentum = decay * momentum + moved.grad / moved.grad.abs().sum()
        moved = moved.detach() + 2.0 * momentum.sign()
        moved = moved.clamp(min=x - 8, max=x + 8).clamp(0, 255)
    made = specific.image_masks([network], attack, photos[:1])[0]
    assert (np.abs(made - (moved - x).numpy()) < 1e-3).mean() > 0.995


def test_fim_is_fi_uap_of_a_person_with_one_photo(photos):
    network, attack = tiny(4), dataclasses.replace(specific.METHODS["fim"], steps=5)
    ours = specific.image_masks([network], attack, photos, seed=7)
    settings = generate.Settings(method="fi_uap", steps=5, start="person", seed=7)
    theirs = laboratory.make_masks(network, settings, photos[:, None])
    same = apply_mask(photos, ours) == apply_mask(photos, theirs)  # the rest are signs near zero
    assert same.mean() > 0.99


@pytest.mark.parametrize("name", specific.METHODS)
def test_masks_do_not_depend_on_batches_and_follow_the_seed(name, photos):
    attack, networks = dataclasses.replace(specific.METHODS[name], steps=3), [tiny(1), tiny(2)]
    seen = []
    together = specific.image_masks(networks, attack, photos)
    apart = specific.image_masks(
        networks, attack, photos, 0, 2, lambda done, total: seen.append((done, total))
    )
    assert seen == [(2, 5), (4, 5), (5, 5)] and together.shape == photos.shape
    assert (np.abs(together - apart) < 1e-3).mean() > 0.99
    other = specific.image_masks(networks, attack, photos, seed=1)
    assert np.abs(other - together).mean() > 0.3


@pytest.mark.parametrize("name", specific.METHODS)
def test_masks_stay_in_the_ball_and_photos_in_their_range(name):
    extremes = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    extremes[1] = 255
    attack = dataclasses.replace(specific.METHODS[name], steps=20, step_size=3.0, epsilon=5.0)
    made = specific.image_masks([tiny(1)], attack, extremes)
    assert np.abs(made).max() == 5.0
    assert (extremes + made).min() >= 0 and (extremes + made).max() <= 255


def test_a_photo_without_gradient_keeps_its_noise(photos):
    network = tiny(1)._replace(embed=lambda weights, images: jnp.ones((len(images), FEATURES)))
    attack = dataclasses.replace(specific.METHODS["m_di2_apf"], steps=2)
    made = specific.image_masks([network], attack, photos)
    assert np.isfinite(made).all() and np.abs(made).max() <= 8


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    return synthetic.photos(range(4), 1)[:, 0]


@pytest.mark.parametrize("name", specific.METHODS)
def test_stronger_than_noise_against_networks_of_the_package(name, people):
    own, other = (recognizer.load(f"zoo:{n}") for n in ("surrogate_softmax", "target_sface"))
    attack = dataclasses.replace(specific.METHODS[name], steps=6)
    made = specific.image_masks([own], attack, people)
    noise = laboratory.random_masks(len(people), people.shape[1])
    masked, noisy = (apply_mask(people, masks) for masks in (made, noise))
    assert np.abs(masked.astype(int) - people).max() <= 8
    for network, highest in ((own, 0.8), (other, 0.95)):
        extract = extractor(network)
        clean, after, noise_after = (extract([p]) for p in (people, masked, noisy))
        similar = (clean * after).sum(1)
        assert (similar < (clean * noise_after).sum(1)).all() and similar.mean() < highest
