"""What stands for a person in feature space, as nearest points (paper 3.2.1, 3.3.2).

Each function takes the clean features of a person, the masked ones and which photos count, and
returns for every masked feature the nearest point of the subspace. Features have unit length.
Photos that are padding (valid 0) span nothing and change nothing.
"""

import jax
import jax.numpy as jnp

from opom_jax.masks.simplex import simplex_least_squares

RANK_TOLERANCE = 1e-6


def point(clean: jax.Array, masked: jax.Array, valid: jax.Array) -> jax.Array:
    """FI-UAP (Eq. 17): each photo's own clean feature.

    Args:
      clean: f32[N,D] unit features of the photos.
      masked: f32[N,D] unit features of the masked photos.
      valid: f32[N], 1 for a photo, 0 for padding.

    Returns:
      f32[N,D].
    """
    del masked, valid
    return clean


def class_center(clean: jax.Array, masked: jax.Array, valid: jax.Array) -> jax.Array:
    """OPOM-ClassCenter (Eq. 10): the mean clean feature, for every photo; shapes as `point`."""
    centre = valid @ clean / valid.sum()
    return jnp.broadcast_to(centre[None], masked.shape)


def affine_hull(clean: jax.Array, masked: jax.Array, valid: jax.Array) -> jax.Array:
    """OPOM-AffineHull (Eq. 4-7): mu + U U'(f - mu), U from the SVD of the centred features.

    Features have unit length: a singular value below 1e-6 is rounding of the centring, and its
    direction is left out. Shapes as `point`.
    """
    centre = valid @ clean / valid.sum()
    edges = (clean - centre[None]) * valid[:, None]
    _, singular, directions = jnp.linalg.svd(edges, full_matrices=False)
    kept = singular > RANK_TOLERANCE
    coordinates = (masked - centre[None]) @ directions.T * kept[None]
    return centre[None] + coordinates @ directions


def convex_hull(
    clean: jax.Array,
    masked: jax.Array,
    valid: jax.Array,
    lower: jax.Array | float = 0.0,
    upper: jax.Array | float = 1.0,
) -> jax.Array:
    """OPOM-ConvexHull (Eq. 12), or the reduced hull (Eq. 9) with lower <= a_i <= upper.

    Shapes as `point`; lower and upper are scalars with n lower <= 1 <= n upper for n photos.
    """
    solve = jax.vmap(simplex_least_squares, (None, 0, None, None))
    return solve(clean, masked, lower * valid, upper * valid) @ clean
