"""Losses that train an embedding by classifying the people of the training set.

Every head has one signature: `head(embeddings, weights, labels, scale, margin)` is the mean loss of
a batch. With e_i the embedding of photo i, w_j the weights of person j (a column), y its person and
cos_j the cosine of e_i and w_j, theta_j its angle:

    softmax   cross entropy of the logits e_i . w_j (neither normalised)
    cosface   cross entropy of s (cos_y - m) and s cos_j (Wang et al., CVPR 2018)
    arcface   cross entropy of s cos(theta_y + m) and s cos_j (Deng et al., CVPR 2019)
    sface     -[r_intra(theta_y)] cos_y + sum_j [r_inter(theta_j)] cos_j over all other people j,
              r_intra(t) = s / (1 + exp(-k (t - a))), r_inter(t) = s / (1 + exp(k (t - b))), [.]
              held constant in the gradient (Zhong & Deng, TIP 2021)

Axes: `B` photos, `D` embedding, `K` people of the training set.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

_TINY = 1e-12  # squared length and squared sine below which gradients are cut off


class Head(NamedTuple):
    """A loss with the settings of its paper.

    Attributes:
      loss: (embeddings f32[B,D], weights f32[D,K], labels i32[B], scale, margin) -> f32 scalar.
      scale: its usual s; 1 where it has none.
      margin: its usual m; 0 where it has none.
    """

    loss: Callable[..., jax.Array]
    scale: float
    margin: float


def softmax(embeddings, weights, labels, scale=1.0, margin=0.0) -> jax.Array:
    """Plain classification; the scale is learnt with the weights, both settings are ignored.

    Args:
      embeddings: f32[B,D], any length.
      weights: f32[D,K].
      labels: i32[B] in [0, K).
    """
    del scale, margin
    logits = jnp.matmul(embeddings, weights, precision=jax.lax.Precision.HIGHEST)
    return _cross_entropy(logits, labels)


def cosface(embeddings, weights, labels, scale=64.0, margin=0.35) -> jax.Array:
    """Additive cosine margin.

    Args:
      embeddings, weights, labels: as in `softmax`; both are normalised here.
      scale: s > 0.
      margin: m in [0, 1).
    """
    cosines = cosine(embeddings, weights)
    mine = _is_own(labels, weights.shape[1])
    return _cross_entropy(scale * jnp.where(mine, cosines - margin, cosines), labels)


def arcface(embeddings, weights, labels, scale=64.0, margin=0.5) -> jax.Array:
    """Additive angular margin; where theta + m passes pi, and the cosine would turn, it is
    cos_y - m sin(m) instead, which keeps falling (as in the authors' code).

    Args:
      embeddings, weights, labels: as in `cosface`.
      scale: s > 0.
      margin: m in [0, pi / 2), radians.
    """
    cosines = cosine(embeddings, weights)
    own = jnp.take_along_axis(cosines, labels[:, None], 1)
    sine = jnp.sqrt(jnp.maximum(1 - own**2, _TINY))
    turned = own * math.cos(margin) - sine * math.sin(margin)
    within = own > math.cos(math.pi - margin)
    target = jnp.where(within, turned, own - margin * math.sin(margin))
    mine = _is_own(labels, weights.shape[1])
    return _cross_entropy(scale * jnp.where(mine, target, cosines), labels)


def sface(embeddings, weights, labels, scale=64.0, margin=0.0, k=80.0, a=0.8, b=1.2) -> jax.Array:
    """Sigmoid-constrained hypersphere loss: pulls only while theta_y > a, pushes while theta_j < b.

    Args:
      embeddings, weights, labels: as in `cosface`.
      scale: s > 0.
      margin: ignored.
      k: slope of the sigmoids.
      a, b: angles of their middles, radians.

    Returns:
      May be negative.
    """
    del margin
    cosines = cosine(embeddings, weights)
    theta = jax.lax.stop_gradient(jnp.arccos(jnp.clip(cosines, -1, 1)))
    pull = -scale * jax.nn.sigmoid(k * (theta - a)) * cosines
    push = scale * jax.nn.sigmoid(k * (b - theta)) * cosines
    return jnp.where(_is_own(labels, weights.shape[1]), pull, push).sum(1).mean()


HEADS = {
    "softmax": Head(softmax, 1.0, 0.0),
    "cosface": Head(cosface, 64.0, 0.35),
    "arcface": Head(arcface, 64.0, 0.5),
    "sface": Head(sface, 64.0, 0.0),
}


def cosine(embeddings: jax.Array, weights: jax.Array) -> jax.Array:
    """f32[B,K] cosines of embeddings f32[B,D] and weights f32[D,K], in full float32."""
    return jnp.matmul(unit(embeddings, 1), unit(weights, 0), precision=jax.lax.Precision.HIGHEST)


def unit(vectors: jax.Array, axis: int) -> jax.Array:
    """Vectors along an axis at length 1, zero (with a finite gradient) where they are zero."""
    square = (vectors**2).sum(axis, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(square, _TINY))


def _is_own(labels: jax.Array, people: int) -> jax.Array:
    """bool[B,K]: whether column j is the photo's own person."""
    return labels[:, None] == jnp.arange(people)[None]


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
