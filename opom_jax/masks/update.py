"""How a gradient moves a mask: the published code's rule and the paper's, with momentum or without.

A rule is `init` and `update` on the state of one person. `masked` is where the next gradient is
taken. In the published code (FIM) the noise is drawn per photo, every masked photo takes the step,
and the mask is the clipped mean over the photos of (masked - clean) after the 0..255 clipping; in
the paper's algorithms the mask itself starts from noise and takes the step (Alg. 1, 2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

FORMS = ("published", "paper")


class State(NamedTuple):
    """One person's mask in the making.

    Attributes:
      mask: f32[H,W,C] in [-epsilon, epsilon].
      masked: f32[N,H,W,C], the masked photos at which the next gradient is taken.
      momentum: f32[N,H,W,C], accumulated gradients of each photo; None without momentum.
    """

    mask: jax.Array
    masked: jax.Array
    momentum: jax.Array | None


class Rule(NamedTuple):
    """Settings of the update: epsilon and step_size on the 0..255 scale, decay of the momentum
    (0: none; the papers use 1), form of `FORMS`."""

    epsilon: float
    step_size: float
    decay: float
    form: str


def init(rule: Rule, images: jax.Array, noise: jax.Array) -> State:
    """The start: images f32[N,H,W,C] in 0..255, noise f32[N,H,W,C] in [-epsilon, epsilon].

    The paper's form starts its one mask from the noise of the first photo. Nothing is clipped to
    0..255 yet, as published.
    """
    noise = noise if rule.form == "published" else jnp.broadcast_to(noise[:1], images.shape)
    momentum = jnp.zeros_like(images) if rule.decay else None
    return State(noise[0], images + noise, momentum)


def update(
    rule: Rule, state: State, gradient: jax.Array, images: jax.Array, valid: jax.Array
) -> State:
    """One step up the objective.

    Args:
      rule: settings.
      state: where the gradient was taken.
      gradient: f32[N,H,W,C], of the objective with respect to `state.masked`.
      images: f32[N,H,W,C], the photos.
      valid: f32[N], 1 for a photo, 0 for padding.

    Returns:
      The next state.
    """
    counts = valid[:, None, None, None]

    def mean(values):
        # A sum of n shares of 1/n falls short of whole grey levels. Behind the barrier XLA does not
        # make shares of the quotient, as it does for some numbers of people and not for others.
        total = jnp.sum(values * counts, 0, keepdims=True)
        return total / lax.optimization_barrier(jnp.broadcast_to(valid.sum(), total.shape))

    momentum = state.momentum
    if momentum is not None:
        gradient = momentum = rule.decay * momentum + _scaled(rule, gradient, mean) * counts
    if rule.form == "paper":
        mask = _clip(rule, state.mask + rule.step_size * jnp.sign(mean(gradient)[0]))
        return State(mask, images + mask[None], momentum)
    # with momentum every photo follows its own sign, without it the sign of the photos' mean
    direction = jnp.sign(mean(gradient) if momentum is None else gradient)
    moved = state.masked + rule.step_size * direction
    mask = _clip(rule, mean(moved - images)[0])
    return State(mask, jnp.clip(images + mask[None], 0.0, 255.0), momentum)


def _scaled(rule: Rule, gradient: jax.Array, mean) -> jax.Array:
    """The gradient over its size; where that is 0 (columns a network crops away) 0, never NaN.

    Published: the mean absolute value over photos, rows and channels, one number a column. Paper
    (Eq. 14): each photo's own L1 norm.
    """
    size = jnp.abs(gradient)
    if rule.form == "paper":
        size = size.sum((1, 2, 3), keepdims=True)
    else:
        size = mean(size).mean((1, 3), keepdims=True)
    return gradient * (1.0 / jnp.where(size > 0, size, 1.0))


def _clip(rule: Rule, mask: jax.Array) -> jax.Array:
    return jnp.clip(mask, -rule.epsilon, rule.epsilon)
