"""The objectives of FI-UAP, FI-UAP+ and OPOM, all to be increased, by one table of methods.

An objective takes a `Scene` and returns a scalar for one person. The published code maximises mean
squared distances; the paper writes sums of distances. The coefficients of a nearest point are
constants for the gradient in both.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from opom_jax.masks import subspaces

NORM_FLOOR = 1e-12  # keeps the gradient of a distance finite where it is zero


class Scene(NamedTuple):
    """What an objective sees of one person at one step.

    Attributes:
      clean: f32[N,D] unit features of the photos.
      masked: f32[N,D] unit features of the masked photos.
      valid: f32[N], 1 for a photo, 0 for padding.
      warm: bool[], true in the initial ClassCenter steps of the hulls (`initial_steps`).
      lower: f32[], smallest coefficient of the reduced hull.
      upper: f32[], largest.
    """

    clean: jax.Array
    masked: jax.Array
    valid: jax.Array
    warm: jax.Array
    lower: jax.Array
    upper: jax.Array


def _convex_hull(scene: Scene) -> jax.Array:
    centre = 1.0 / scene.valid.sum()
    lower = jnp.where(scene.warm, centre, scene.lower)
    upper = jnp.where(scene.warm, centre, scene.upper)
    return subspaces.convex_hull(scene.clean, scene.masked, scene.valid, lower, upper)


def _subspace(nearest) -> Callable[[Scene], jax.Array]:
    return lambda scene: nearest(scene.clean, scene.masked, scene.valid)


NEAREST: dict[str, Callable[[Scene], jax.Array]] = {
    "fi_uap": _subspace(subspaces.point),
    "affine_hull": _subspace(subspaces.affine_hull),
    "class_center": _subspace(subspaces.class_center),
    "convex_hull": _convex_hull,
}
METHODS = ("fi_uap", "fi_uap_plus", "affine_hull", "class_center", "convex_hull")


def objective(method: str, form: str) -> Callable[[Scene], jax.Array]:
    """The scalar that a method increases.

    Args:
      method: a name of `METHODS` ("convex_hull" with lower and upper is the reduced hull).
      form: "published" (mean over photos and dimensions of the squared distance; for FI-UAP+ minus
        the mean cosine of all pairs) or "paper" (sum of the distances, Eq. 8, 11, 13, 17, 18).

    Returns:
      Scene -> f32[], in float32 whatever the precision of the network.
    """
    if method == "fi_uap_plus":
        own = {"published": _minus_mean_cosine, "paper": _sum_of_pair_distances}[form]
    else:
        own = partial(_distance_to, NEAREST[method], MEASURES[form])
    return partial(_exactly, own)


def _exactly(increase, scene: Scene) -> jax.Array:
    """Products in float32 on accelerators too, and so is their gradient."""
    with jax.default_matmul_precision("highest"):
        return increase(scene)


def _distance_to(nearest, measure, scene: Scene) -> jax.Array:
    still = jax.lax.stop_gradient(scene)  # before the solver, which is then never differentiated
    return measure(scene.masked - nearest(still), scene.valid)


def _mean_square(difference: jax.Array, valid: jax.Array) -> jax.Array:
    return valid @ jnp.mean(difference**2, -1) / valid.sum()


def _distance(difference: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(jnp.sum(difference**2, -1), NORM_FLOOR**2))


def _sum_of_distances(difference: jax.Array, valid: jax.Array) -> jax.Array:
    return valid @ _distance(difference)


# form -> (differences f32[N,D], valid f32[N]) -> f32[], what is made of the distances of N photos
MEASURES = {"published": _mean_square, "paper": _sum_of_distances}


def _minus_mean_cosine(scene: Scene) -> jax.Array:
    n = scene.valid.sum()
    return -jnp.vdot(scene.valid @ scene.masked, scene.valid @ scene.clean) / n**2


def _sum_of_pair_distances(scene: Scene) -> jax.Array:
    pairs = _distance(scene.masked[:, None] - scene.clean[None])
    return scene.valid @ pairs @ scene.valid
