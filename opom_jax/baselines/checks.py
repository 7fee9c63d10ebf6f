"""When GD-UAP halves its noise, which mask it keeps and when it ends (Mopuri et al., TPAMI 2018).

The noise is halved when the share of pixels at +-epsilon has come to rest above a half. At such a
moment more than 200 steps after the last check or halving, and after 400 steps without either, a
check compares the mask with the best one so far; ten checks without a better one end the run. The
check asks for the rate of fooled images; without classes it asks here for the mean distance of the
features from the clean ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

SATURATED, RESTING = 0.5, 1e-5  # share of pixels at +-epsilon, and its change in a step
SOONEST, LATEST = 200, 400  # steps from one check to the next
PATIENCE = 10  # checks


class Checks(NamedTuple):
    """What is known of one person's run.

    Attributes:
      saturation: f32[], share of pixels at +-epsilon one step ago.
      checked: i32[], step of the last check or halving.
      failed: i32[], checks since the best one.
      iterations: i32[], steps until now.
      best: f32[H,W,C], the mask of the best check.
      objective: f32[], at this mask.
      distance: f32[], of it.
    """

    saturation: jax.Array
    checked: jax.Array
    failed: jax.Array
    iterations: jax.Array
    best: jax.Array
    objective: jax.Array
    distance: jax.Array

    @property
    def ended(self) -> jax.Array:
        """Whether the run is over: bool[]."""
        return self.failed >= PATIENCE


def begin(noise: jax.Array) -> Checks:
    """Before the first step, when there is no mask yet: noise f32[H,W,C]."""
    none, least = jnp.int32(0), jnp.float32(-jnp.inf)
    return Checks(jnp.float32(0), none, none, none, jnp.zeros_like(noise), least, least)


def check(
    checks: Checks,
    noise: jax.Array,
    epsilon: float,
    objective: jax.Array,
    distance: jax.Array,
    count: jax.Array,
    last: jax.Array,
) -> tuple[Checks, jax.Array]:
    """Looks at a mask, and checks it where it is time.

    Args:
      checks: until here.
      noise: f32[H,W,C]; the mask is its clip to +-epsilon.
      epsilon: largest change of a pixel.
      objective: f32[], at the mask.
      distance: f32[], mean distance of the masked features from the clean ones.
      count: i32[], steps until here.
      last: bool[], whether it is checked in any case.

    Returns:
      (checks, whether the noise is to be halved: bool[]).
    """
    saturation = jnp.mean(jnp.abs(noise) >= epsilon)
    resting = (saturation > SATURATED) & (jnp.abs(saturation - checks.saturation) < RESTING)
    since = count - checks.checked
    due = last | (since >= LATEST) | (resting & (since > SOONEST))
    better = due & (distance > checks.distance)
    found = Checks(
        saturation=saturation,
        checked=jnp.where(due | resting, count, checks.checked),
        failed=jnp.where(better, 0, checks.failed + due),
        iterations=count,
        best=jnp.where(better, jnp.clip(noise, -epsilon, epsilon), checks.best),
        objective=jnp.where(better, objective, checks.objective),
        distance=jnp.where(better, distance, checks.distance),
    )
    return found, resting
