"""Image-specific masks (Fig. 6): FIM, M-DI2-APF and LowKey, a mask for every photo.

From noise, all of them climb an objective J by sign steps inside the ball around the photo x:

    g  <- decay g + grad J(x') / |grad J(x')|_1                            (decay 0: no momentum)
    x' <- x' + step_size sign(g), clipped to [x - epsilon, x + epsilon] and [0, 255]
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from opom_jax.baselines.specific_objectives import (
    Embed,
    Objective,
    Scene,
    feature_distance,
    lowkey,
    ssim_distance,
)
from opom_jax.draws import drawn
from opom_jax.masks.transfer import input_diversity
from opom_jax.networks.recognizer import Params, Recognizer

SMALLEST = 299 / 330  # of the side, in input diversity: what Xie et al. resize from and to


class State(NamedTuple):
    """One photo on its way.

    Attributes:
      masked: f32[H,W,3], x'.
      momentum: f32[H,W,3], g.
    """

    masked: jax.Array
    momentum: jax.Array


@dataclasses.dataclass(frozen=True)
class Attack:
    """A method with its settings; pixels on the 0..255 scale.

    Attributes:
      objective: J.
      epsilon: largest change of a pixel.
      step_size: change of a pixel in a step.
      steps: T.
      noise: the start is uniform in [-noise, noise].
      decay: of the momentum.
      diversity: probability of input diversity in a step; 0 for none.
    """

    objective: Objective
    epsilon: float = 8.0
    step_size: float = 1.0
    steps: int = 16
    noise: float = 8.0
    decay: float = 0.0
    diversity: float = 0.0


# The paper gives no settings for Fig. 6. FIM has those of its other masks, M-DI2-APF those of its
# masks with momentum (Eq. 14, 100 steps) and the probability of Xie et al.; LowKey has those of its
# published code (0.0025 and 0.005 of 0..1), in the same ball as the others.
METHODS = {
    "fim": Attack(feature_distance),
    "m_di2_apf": Attack(feature_distance, steps=100, decay=1.0, diversity=0.5),
    "lowkey": Attack(lowkey(ssim_distance), step_size=0.0025 * 255, steps=50, noise=0.005 * 255),
}


def image_masks(
    networks: Sequence[Recognizer],
    attack: Attack,
    photos: np.ndarray,
    seed: int = 0,
    photos_per_batch: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """A mask for every photo, which depends on its number but not on the others.

    Args:
      networks: the surrogates, at least one; all are attacked together.
      attack: of `METHODS`, or another.
      photos: u8[B,H,W,3] RGB, at least one.
      seed: of the random numbers.
      photos_per_batch: computed together.
      progress: called with the photos done and their total.

    Returns:
      f32[B,H,W,3] in [-epsilon, epsilon].
    """
    begin, step = _compiled(tuple(network.embed for network in networks), attack)
    params = tuple(network.ready() for network in networks)
    size, made = min(photos_per_batch, len(photos)), []
    for start in range(0, len(photos), size):
        numbers = np.minimum(np.arange(start, start + size), len(photos) - 1)
        scene, state = begin(params, jax.random.key(seed), numbers, photos[numbers])
        for count in range(attack.steps):
            state = step(params, scene, state, np.int32(count))
        made.append(np.asarray(state.masked) - photos[numbers])
        if progress:
            progress(min(start + size, len(photos)), len(photos))
    return np.concatenate(made)[: len(photos)]


@functools.cache
def _compiled(embeds: tuple[Callable[[Params, jax.Array], jax.Array], ...], attack: Attack) -> Any:
    """The start and the step of a batch of photos, once for all networks of the same kinds."""

    def bound(params: tuple[Params, ...]) -> list[Embed]:
        return [functools.partial(e, p) for e, p in zip(embeds, params, strict=True)]

    def begin(params, key, number, photo):
        photo = photo.astype(jnp.float32)
        key = jax.random.fold_in(key, number)
        clean = tuple(network(photo[None])[0] for network in bound(params))
        limits = {"minval": -attack.noise, "maxval": attack.noise}
        noise = drawn(jax.random.uniform, jax.random.fold_in(key, 0), photo.shape, **limits)
        return Scene(photo, clean, key), State(photo + noise, jnp.zeros_like(photo))

    def step(params, scene: Scene, state: State, count):
        def value(masked):
            if attack.diversity:
                key = jax.random.fold_in(scene.key, 1 + count)
                smallest = round(SMALLEST * masked.shape[0])
                masked = input_diversity(key, masked[None], attack.diversity, smallest)[0]
            return attack.objective(bound(params), scene, masked)

        return ascend(attack, scene.photo, state, jax.grad(value)(state.masked))

    each = jax.vmap(step, (None, 0, 0, None))
    return jax.jit(jax.vmap(begin, (None, None, 0, 0))), jax.jit(each, donate_argnums=2)


def ascend(attack: Attack, photo: jax.Array, state: State, gradient: jax.Array) -> State:
    """One step up: the two lines at the top of this file; arrays f32[H,W,3]."""
    size = jnp.abs(gradient).sum()
    momentum = attack.decay * state.momentum + gradient / jnp.where(size > 0, size, 1.0)
    low = jnp.maximum(photo - attack.epsilon, 0.0)
    high = jnp.minimum(photo + attack.epsilon, 255.0)
    masked = jnp.clip(state.masked + attack.step_size * jnp.sign(momentum), low, high)
    return State(masked, momentum)
