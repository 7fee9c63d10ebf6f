"""GD-UAP with a person's photos as data prior: maximal activations at every layer (Eq. 16).

    minimise over the mask   - sum_i log prod_j |l_j(X_i + mask)|,   |mask|_inf < epsilon

The l_j are the network's taps: the ends of its residual blocks, or of what it has in their place,
and of its first and last convolutions outside them.
Adam starts from uniform noise, as in GD-UAP (Mopuri, Ganeshan & Babu, TPAMI 2018); `checks.py` has
the saturation of the noise and the end.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from opom_jax import parallel
from opom_jax.baselines.checks import Checks, begin, check
from opom_jax.baselines.settings import Settings
from opom_jax.errors import InputError
from opom_jax.masks import generate as masks
from opom_jax.masks.batches import Batch, Made, Progress, equal_batches
from opom_jax.masks.objectives import NORM_FLOOR
from opom_jax.networks.recognizer import Recognizer, forward_of, normalize
from opom_jax.networks.registry import Spec

LEARNING_RATE = 0.1  # as published
ASKED = 100  # steps after which the host looks whether all have ended


class State(NamedTuple):
    """One person's mask in the making.

    Attributes:
      noise: f32[H,W,C]; the mask is its clip to +-epsilon.
      adam: state of optax.
      checks: until here.
    """

    noise: jax.Array
    adam: Any
    checks: Checks


def activations(taps: dict[str, jax.Array], valid: jax.Array) -> jax.Array:
    """Eq. 16 without its sign: taps [N,h,w,c], valid f32[N] -> f32[], sums over photos and taps of
    log |l|."""
    squares = [jnp.sum(tap.astype(jnp.float32) ** 2, (1, 2, 3)) for tap in taps.values()]
    logs = 0.5 * jnp.log(jnp.maximum(jnp.stack(squares), NORM_FLOOR**2))
    return valid @ logs.sum(0)


def gd_uap(
    network: Recognizer,
    settings: Settings,
    people: Batch,
    size: int,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Made:
    """A mask for each person; see `methods.Maker`.

    Metrics of the masks: objective and distance f32[P]; iterations i32[P] until the run ended.

    Raises:
      InputError: also for a network without taps.
    """
    del folder
    settings.check()
    check_network(network, settings)
    kept, names = [], ("best", "objective", "distance", "iterations")
    for own, batch in equal_batches(people, size):
        checks = _run(network, settings, batch)
        kept.append([np.asarray(getattr(checks, name))[:own] for name in names])
        if progress:
            progress(sum(len(best) for best, *_ in kept), len(people.ids))
    best, *numbers = (np.concatenate(rows) for rows in zip(*kept, strict=True))
    return Made(best, dict(zip(names[1:], numbers, strict=True)))


def check_network(network: Recognizer, settings: masks.Settings) -> None:
    """Raises InputError for a network without taps, whatever the settings; nothing is computed."""
    del settings
    size = network.spec.size
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    if not jax.eval_shape(forward_of(network.spec), network.params, image)[1]:
        raise InputError(f"{network.name} has no taps, which gd_uap needs; use another network.")


def _run(network: Recognizer, settings: Settings, batch: Batch) -> Checks:
    """The checks of the people of one batch when all have ended, with a leading axis P."""
    start = masks.generator(network, settings.fi_uap()).start
    ids, photos, valid = batch
    params = parallel.replicated(network.ready(), ids)
    begun, clean = start(params, ids, photos)
    step, state = _step(network.spec, settings.epsilon), _begin(begun.mask)
    for count in range(settings.iterations + 1):  # in the last one the mask is only checked
        if count % ASKED == 0 and np.asarray(state.checks.ended).all():
            break
        last = count == settings.iterations
        state = step(params, state, photos, clean, valid, count, last)
    return state.checks


@jax.jit
@jax.vmap
def _begin(noise: jax.Array) -> State:
    return State(noise, optax.adam(LEARNING_RATE).init(noise), begin(noise))


@functools.cache
def _step(spec: Spec, epsilon: float):
    """(params, State, photos, clean, valid, count, last) -> State, of people; the state given is
    used up, and that of people whose run has ended stays."""
    forward, rule = forward_of(spec), optax.adam(LEARNING_RATE)

    def one(params, state: State, photos, clean, valid, count, last) -> State:
        def scalar(noise):
            mask = jnp.clip(noise, -epsilon, epsilon)
            embedding, taps = forward(params, photos.astype(jnp.float32) + mask[None])
            moved = jnp.linalg.norm(normalize(embedding) - clean, axis=-1)
            return activations(taps, valid), valid @ moved / valid.sum()

        gradient = jax.value_and_grad(scalar, has_aux=True)
        (objective, distance), slope = gradient(state.noise)
        checks, halve = check(state.checks, state.noise, epsilon, objective, distance, count, last)
        change, adam = rule.update(-slope, state.adam)
        climbed = cast(jax.Array, optax.apply_updates(state.noise, change))
        noise = jnp.where(halve, state.noise / 2, climbed)
        new, ended = State(noise, adam, checks), state.checks.ended
        return jax.tree.map(lambda old, new: jnp.where(ended, old, new), state, new)

    return parallel.OverPeople(one, (None, 0, 0, 0, 0, None, None), donate=[1])
