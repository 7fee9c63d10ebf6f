"""Nearest points and objectives: closed forms, padding, gradients against the published losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax.masks import subspaces
from opom_jax.masks.objectives import METHODS, Scene, objective
from opom_jax.networks.recognizer import normalize

METHOD_OF = {
    "fiuap_0": "fi_uap",
    "fiuapplus_2": "fi_uap_plus",
    "classcenter_7": "class_center",
    "affinehull_8": "affine_hull",
    "convexhull_9": "convex_hull",
    "reducedhull_9_005_030": "convex_hull",
}


def features(rng, n, d=32):
    return np.asarray(normalize(jnp.asarray(rng.standard_normal((n, d)) + 1.5, jnp.float32)))


def scene(clean, masked, valid=None, lower=0.0, upper=1.0, warm=False):
    valid = jnp.ones(len(clean)) if valid is None else jnp.asarray(valid, jnp.float32)
    box = jnp.float32(lower), jnp.float32(upper)
    return Scene(jnp.asarray(clean), jnp.asarray(masked), valid, jnp.array(warm), *box)


def value_of(method, form, of):
    return float(jax.jit(objective(method, form))(of))


@pytest.mark.parametrize("name", METHOD_OF)
def test_loss_and_gradient_of_the_published_code(goldens, name):
    stored = np.load(goldens / "opom_lossfunctions.npz")
    lower, upper = (0.05, 0.3) if name.startswith("reduced") else (0.0, 1.0)
    clean = normalize(jnp.asarray(stored["fea2"]))
    increase = objective(METHOD_OF[name], "published")

    def loss(raw):
        return increase(scene(clean, normalize(raw), lower=lower, upper=upper))

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(stored["fea1"]))
    theirs = stored[f"{name}_grad_fea1"]
    assert float(value) == pytest.approx(float(stored[f"{name}_Loss"]), rel=1e-5)
    assert np.linalg.norm(gradient - theirs) <= 2e-5 * np.linalg.norm(theirs)


def test_affine_hull_is_the_least_squares_solution_with_coefficients_that_sum_to_one(goldens):
    stored = np.load(goldens / "opom_lossfunctions.npz")
    clean, masked = (np.asarray(normalize(stored[k])) for k in ("fea2", "fea1"))
    nearest = subspaces.affine_hull(clean, masked, jnp.ones(10))
    np.testing.assert_allclose(nearest, stored["affinehull_8_x_exact"] @ clean, atol=2e-6)


def test_affine_hull_of_equal_photos_is_their_point():
    clean = np.repeat(features(np.random.default_rng(0), 1), 4, 0)
    masked = features(np.random.default_rng(1), 4)
    nearest = subspaces.affine_hull(jnp.asarray(clean), jnp.asarray(masked), jnp.ones(4))
    np.testing.assert_allclose(nearest, clean, atol=1e-5)


@pytest.mark.parametrize("form", ["published", "paper"])
@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_neither_value_nor_gradient(method, form):
    rng = np.random.default_rng(2)
    clean, masked = features(rng, 3), features(rng, 3)
    filler = features(rng, 2)
    increase = objective(method, form)

    def value(m, pad):
        if not pad:
            return increase(scene(clean, m))
        c = np.concatenate([clean, filler])
        return increase(scene(c, jnp.concatenate([m, filler]), [1, 1, 1, 0, 0]))

    both = jax.jit(jax.value_and_grad(value), static_argnums=1)
    alone, gradient = both(jnp.asarray(masked), False)
    padded, padded_gradient = both(jnp.asarray(masked), True)
    np.testing.assert_allclose(padded, alone, rtol=2e-5)
    np.testing.assert_allclose(padded_gradient, gradient, atol=2e-5 * np.abs(gradient).max())


@pytest.mark.parametrize("form", ["published", "paper"])
def test_subspaces_are_nested(form):
    """The larger the set that stands for a person, the smaller the distance to it."""
    rng = np.random.default_rng(3)
    s = scene(features(rng, 6), features(rng, 6))
    center, convex, affine = (
        value_of(m, form, s) for m in ("class_center", "convex_hull", "affine_hull")
    )
    reduced = value_of("convex_hull", form, s._replace(upper=jnp.float32(0.3)))
    point = value_of("fi_uap", form, s)
    assert affine < convex < reduced < center
    assert convex < point


def test_convex_hull_warms_up_as_the_class_center():
    rng = np.random.default_rng(4)
    s = scene(features(rng, 5), features(rng, 5), [1, 1, 1, 1, 0], warm=True)
    warm = value_of("convex_hull", "published", s)
    np.testing.assert_allclose(warm, value_of("class_center", "published", s), rtol=1e-5)


def test_paper_form_sums_distances():
    rng = np.random.default_rng(5)
    clean, masked = features(rng, 4), features(rng, 4)
    s = scene(clean, masked)
    np.testing.assert_allclose(
        objective("fi_uap", "paper")(s), np.linalg.norm(masked - clean, axis=1).sum(), rtol=1e-5
    )
    pairs = np.linalg.norm(masked[:, None] - clean[None], axis=-1)
    np.testing.assert_allclose(objective("fi_uap_plus", "paper")(s), pairs.sum(), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", ["published", "paper"])
def test_gradient_is_finite_where_a_masked_feature_equals_its_target(method, form):
    clean = jnp.asarray(features(np.random.default_rng(6), 3))
    gradient = jax.jit(jax.grad(lambda m: objective(method, form)(scene(clean, m))))(clean)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("spread", [1.0, 0.1, 0.01])
def test_affine_hull_of_photos_that_are_alike(spread):
    rng = np.random.default_rng(7)
    common = rng.standard_normal((1, 512)) / 512**0.5
    clean = common + spread * rng.standard_normal((10, 512)) / 512**0.5
    clean = np.asarray(normalize(jnp.asarray(clean, jnp.float32)))
    masked = features(rng, 10, 512)
    exact, target = clean.astype(np.float64), masked.astype(np.float64)
    edges = (exact - exact[0])[1:]
    coordinates = np.linalg.lstsq(edges.T, (target - exact[0]).T, rcond=None)[0]
    wanted = exact[0] + coordinates.T @ edges
    nearest = subspaces.affine_hull(jnp.asarray(clean), jnp.asarray(masked), jnp.ones(10))
    np.testing.assert_allclose(nearest, wanted, atol=2e-4)
