"""GD-UAP with a person's photos as data prior: maximal activations at every layer (Eq. 16).

    minimise over the mask   - sum_i log prod_j |l_j(X_i + mask)|,   |mask|_inf < epsilon

The l_j are the network's taps: the ends of all residual blocks and the convolutions outside them.
The optimisation is that of GD-UAP (Mopuri, Ganeshan & Babu, TPAMI 2018): Adam from uniform noise;
when the share of pixels at +-epsilon has come to rest above a half, the noise is halved; the mask
that is kept is the best of checks at these moments and every 400 steps, and ten checks without a
better one end the run. A check asks for the rate of fooled images; without classes it asks here
for the mean distance of the features from the clean ones.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from opom_jax.baselines.settings import Made, Progress, Settings
from opom_jax.errors import InputError
from opom_jax.masks import generate as masks
from opom_jax.masks.objectives import NORM_FLOOR
from opom_jax.networks.recognizer import Recognizer, forward_of, normalize
from opom_jax.networks.registry import Spec

LEARNING_RATE = 0.1
SATURATED, RESTING = 0.5, 1e-5  # share of pixels at +-epsilon, and its change in a step
SOONEST, LATEST = 200, 400  # steps from one check to the next
PATIENCE = 10  # checks
ASKED = 100  # steps after which the host looks whether all have ended


class State(NamedTuple):
    """One person's mask in the making.

    Attributes:
      noise: f32[H,W,C]; the mask is its clip to +-epsilon.
      adam: state of optax.
      saturation: f32[], share of pixels at +-epsilon one step ago.
      checked: i32[], step of the last check or halving.
      failed: i32[], checks since the best one; `PATIENCE` of them end the run.
      iterations: i32[], steps until now or until the end of the run.
      best: f32[H,W,C], the mask of the best check.
      objective: f32[], its logarithms of activations.
      distance: f32[], its distance.
    """

    noise: jax.Array
    adam: Any
    saturation: jax.Array
    checked: jax.Array
    failed: jax.Array
    iterations: jax.Array
    best: jax.Array
    objective: jax.Array
    distance: jax.Array


def activations(taps: dict[str, jax.Array], valid: jax.Array) -> jax.Array:
    """Eq. 16 without its sign: taps [N,h,w,c], valid f32[N] -> f32[], sums over photos and taps of
    log |l|."""
    squares = [jnp.sum(tap.astype(jnp.float32) ** 2, (1, 2, 3)) for tap in taps.values()]
    logs = 0.5 * jnp.log(jnp.maximum(jnp.stack(squares), NORM_FLOOR**2))
    return valid @ logs.sum(0)


def gd_uap(
    network: Recognizer,
    settings: Settings,
    people: masks.Batch,
    size: int,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Made:
    """A mask for each person; see `methods.Baseline`.

    Metrics of the masks: objective and distance f32[P]; iterations i32[P] until the run ended.

    Raises:
      InputError: also for a network without taps.
    """
    del folder
    settings.check()
    start = masks.generator(network, settings.fi_uap()).start
    step = _step(network.spec, settings.epsilon)
    image = jax.ShapeDtypeStruct((1, *people.photos.shape[2:]), jnp.float32)
    if not jax.eval_shape(forward_of(network.spec), network.params, image)[1]:
        raise InputError(f"{network.name} has no taps, which gd_uap needs; use another network.")
    kept, done = [], 0
    for own, batch in masks.equal_batches(people, size):
        begun, clean = start(network.params, batch.ids, batch.photos)
        state = _begin(begun.mask)
        for count in range(settings.iterations + 1):  # in the last one the mask is only checked
            if count % ASKED == 0 and (np.asarray(state.failed) >= PATIENCE).all():
                break
            last = count == settings.iterations
            state = step(network.params, state, batch.photos, clean, batch.valid, count, last)
        kept.append(jax.tree.map(lambda array, own=own: np.asarray(array)[:own], state))
        done += own
        if progress:
            progress(done, len(people.ids))
    found = jax.tree.map(lambda *arrays: np.concatenate(arrays), *kept)
    names = ("objective", "distance", "iterations")
    return Made(found.best, {name: getattr(found, name) for name in names})


def _init(noise: jax.Array) -> State:
    adam = optax.adam(LEARNING_RATE).init(noise)
    none, least = jnp.int32(0), jnp.float32(-jnp.inf)
    return State(noise, adam, jnp.float32(0), none, none, none, jnp.zeros_like(noise), least, least)


_begin = jax.jit(jax.vmap(_init))


@functools.cache
def _step(spec: Spec, epsilon: float):
    """(params, State, photos, clean, valid, count, last) -> State, of people; the state given is
    used up."""
    forward, rule = forward_of(spec), optax.adam(LEARNING_RATE)

    def one(params, state: State, photos, clean, valid, count, last) -> State:
        def scalar(noise):
            mask = jnp.clip(noise, -epsilon, epsilon)
            embedding, taps = forward(params, photos.astype(jnp.float32) + mask[None])
            moved = jnp.linalg.norm(normalize(embedding) - clean, axis=-1)
            return activations(taps, valid), valid @ moved / valid.sum()

        gradient = jax.value_and_grad(scalar, has_aux=True)
        (objective, distance), slope = gradient(state.noise)
        new, resting = _checked(epsilon, state, objective, distance, count, last)
        change, adam = rule.update(-slope, state.adam)
        noise = jnp.where(resting, state.noise / 2, state.noise + change)
        ended = state.failed >= PATIENCE
        keep = lambda old, new: jnp.where(ended, old, new)  # noqa: E731
        return jax.tree.map(keep, state, new._replace(noise=noise, adam=adam))

    return jax.jit(jax.vmap(one, (None, 0, 0, 0, 0, None, None)), donate_argnums=1)


def _checked(epsilon, state: State, objective, distance, count, last) -> tuple[State, jax.Array]:
    """The state with what a check of its mask found, and whether the saturation has come to rest;
    it is checked at once where it is the last time."""
    saturation = jnp.mean(jnp.abs(state.noise) >= epsilon)
    resting = (saturation > SATURATED) & (jnp.abs(saturation - state.saturation) < RESTING)
    since = count - state.checked
    check = last | (since >= LATEST) | (resting & (since > SOONEST))
    better = check & (distance > state.distance)
    mask = jnp.clip(state.noise, -epsilon, epsilon)
    found = state._replace(
        saturation=saturation,
        checked=jnp.where(check | resting, count, state.checked),
        failed=jnp.where(better, 0, state.failed + check),
        iterations=count,
        best=jnp.where(better, mask, state.best),
        objective=jnp.where(better, objective, state.objective),
        distance=jnp.where(better, distance, state.distance),
    )
    return found, resting
