"""Several masks of one person, each away from the person and from the others (4.3.4, Eq. 19).

A photo that was protected with one mask then does not find those protected with another, nor a
mask that leaked undo the rest (Table 6). The paper states what must be far from what; increased
here is the sum of all these distances, each with the weight 1: the method's objective of every
mask, and for every pair of masks the distance of the same photos under the one and the other, both
in the form (published or paper) of the settings.

Axes: `M` masks of a person (the paper's n_M).
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from opom_jax import parallel
from opom_jax.masks.batches import Batch, equal_batches
from opom_jax.masks.generate import Settings, of_step, person_noise, published_noise, rule
from opom_jax.masks.objectives import MEASURES, Scene, objective
from opom_jax.masks.update import State, init, update
from opom_jax.networks.recognizer import Params, Recognizer, normalize


def diverse_masks(network: Recognizer, settings: Settings, batch: Batch, count: int) -> np.ndarray:
    """Masks of one batch of people.

    Args:
      network: the surrogate.
      settings: of every mask; mask m starts from the noise of seed + m.
      batch: people and photos.
      count: M >= 1; with one it is the method's own mask.

    Returns:
      f32[P,M,H,W,C] in [-epsilon, epsilon].

    Raises:
      InputError: settings out of range.
    """
    settings.check()
    start, step = _compiled(network.embed, settings, count)
    ids, photos, valid = map(jnp.asarray, batch)
    params = parallel.replicated(network.ready(), ids)
    noise = None
    if settings.start == "published":
        each = _seeded(settings, count)
        noise = np.stack([published_noise(own, photos.shape[1:]) for own in each])
    state, clean = start(params, ids, noise, photos)
    for done in range(settings.steps):
        state = step(params, state, ids, photos, clean, valid, np.int32(done))
    return np.asarray(state.mask)


def make_diverse(
    network: Recognizer, settings: Settings, people: Batch, size: int, count: int
) -> np.ndarray:
    """The same of all people, at most `size` (1 or more) on a device at once."""
    made = [
        diverse_masks(network, settings, batch, count)[:own]
        for own, batch in equal_batches(people, size)
    ]
    return np.concatenate(made)


def _seeded(settings: Settings, count: int) -> list[Settings]:
    """Those of every mask; a seed is 32 bits."""
    seeds = ((settings.seed + m) % 2**32 for m in range(count))
    return [dataclasses.replace(settings, seed=seed) for seed in seeds]


def _together(settings: Settings) -> Callable[[Scene, jax.Array], jax.Array]:
    """(Scene whose masked features are f32[M,N,D], f32[N]) -> what is increased."""
    away, measure = objective(settings.method, settings.form), MEASURES[settings.form]

    def scalar(scene: Scene, valid: jax.Array) -> jax.Array:
        masked = scene.masked
        single = jax.vmap(lambda own: away(scene._replace(masked=own)))(masked).sum()
        if len(masked) == 1:
            return single
        one, two = np.triu_indices(len(masked), 1)
        return single + jax.vmap(measure, (0, None))(masked[one] - masked[two], valid).sum()

    return scalar


@functools.cache
def _compiled(embed: Callable[[Params, jax.Array], jax.Array], settings: Settings, count: int):
    increase = _together(settings)
    bounds = jnp.float32(settings.lower), jnp.float32(settings.upper)

    def start(params, person, noise, photos):
        images = photos.astype(jnp.float32)
        if noise is None:
            each = _seeded(settings, count)
            noise = jnp.stack([person_noise(own, person, images.shape) for own in each])
        state = jax.vmap(lambda own: init(rule(settings), images, own))(noise)
        return state, normalize(embed(params, images))

    def step(params, state: State, person, photos, clean, valid, done):
        images = photos.astype(jnp.float32)
        surrogate, clean = of_step(embed, settings, params, person, done, images, clean)

        def scalar(masked):
            # all masks of a photo together: dropout goes by the place, which padding must not move
            flat = masked.swapaxes(0, 1).reshape(-1, *masked.shape[2:])
            features = normalize(surrogate(params, flat))
            features = features.reshape(-1, count, features.shape[-1]).swapaxes(0, 1)
            scene = Scene(clean, features, valid, done < settings.initial_steps, *bounds)
            return increase(scene, valid)

        gradient = jax.grad(scalar)(state.masked)
        move = functools.partial(update, rule(settings))
        each = jnp.broadcast_to(valid, (count, *valid.shape))  # shared, its mean would be rounded
        return jax.vmap(move, (0, 0, None, 0))(state, gradient, images, each)

    return (
        parallel.OverPeople(start, (None, 0, None, 0)),
        parallel.OverPeople(step, (None, 0, 0, 0, 0, 0, None), donate=[1]),
    )
