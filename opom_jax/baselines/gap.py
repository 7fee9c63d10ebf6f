"""GAP: a generator learns to turn one fixed pattern into one mask for everybody (section 3.3.3).

    U = epsilon G(Z) / |G(Z)|_inf,    maximise over G    sum_i |f(X_i) - f(X_i + U)|   (Eq. 17)

Generator, optimiser and batches are those of GAP (Poursaeed et al., CVPR 2018), whose code scales
each colour by itself and only down; the photos are all photos of all people, ten times. In a folder
every epoch leaves a checkpoint, from which an interrupted training goes on with the same bits.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from opom_jax.baselines.generator import first_params
from opom_jax.baselines.settings import Settings
from opom_jax.checkpoints import Checkpoints
from opom_jax.draws import drawn
from opom_jax.masks import generate as masks
from opom_jax.masks.batches import Batch, Made, Progress
from opom_jax.networks.recognizer import Params, Recognizer, normalize

BETA = 0.5  # Adam's decay of the mean gradient, as published


class State(NamedTuple):
    """Everything that a step changes.

    Attributes:
      params: the generator's.
      adam: state of optax.
      history: f32[epochs,2], mean objective and distance of the steps of each epoch.
      step: i32[], steps done.
    """

    params: nnx.State
    adam: Any
    history: jax.Array
    step: jax.Array


class Training(NamedTuple):
    """The compiled pieces.

    Attributes:
      init: () -> State.
      step: (params, State, photos u8[B,H,W,C], valid f32[B], epoch, share of the step in the
        epoch's history) -> State; the state given is used up.
      mask: the generator's parameters -> f32[H,W,C] in [-epsilon, epsilon].
    """

    init: Callable[[], State]
    step: Callable[..., State]
    mask: Callable[[nnx.State], jax.Array]


def gap(
    network: Recognizer,
    settings: Settings,
    people: Batch,
    size: int,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Made:
    """One mask for everybody; see `methods.Maker`. Metrics: objective and distance
    f32[P,epochs]."""
    del size
    settings.check()
    photos = people.photos[people.valid > 0]
    compiled = training(network.embed, settings, photos.shape[1:3])
    record = {
        "settings": dataclasses.asdict(settings),
        "surrogate": network.digest,
        "photos": hashlib.sha256(photos.data).hexdigest(),
    }
    with closing(Checkpoints(folder, record)) if folder else nullcontext() as checkpoints:
        state = _trained(compiled, network, settings, photos, checkpoints, progress)
    objective, distance = np.asarray(state.history).T
    metrics = {"objective": objective, "distance": distance}
    return Made.of_everybody(len(people.ids), np.asarray(compiled.mask(state.params)), metrics)


def _trained(compiled, network, settings, photos, checkpoints, progress) -> State:
    """The state after all epochs, from the last checkpoint if there is one."""
    weights, state, first = network.ready(), compiled.init(), 0
    if checkpoints and checkpoints.latest():
        state = checkpoints.restore(jax.eval_shape(compiled.init))
        first = int(state.step) // len(_batches(settings, len(photos), 0))
    for epoch in range(first, settings.epochs):
        batches = _batches(settings, len(photos), epoch)
        share = np.float32(1 / len(batches))
        for rows, valid in batches:
            state = compiled.step(weights, state, photos[rows], valid, epoch, share)
        if checkpoints:
            checkpoints.save(state)
        if progress:
            progress(epoch + 1, settings.epochs)
    return state


@functools.cache
def training(
    embed: Callable[[Params, jax.Array], jax.Array], settings: Settings, shape: tuple[int, ...]
) -> Training:
    """A training with the `embed` of one kind of network on photos of shape (H, W)."""
    graph, params = first_params(settings.width, settings.blocks, settings.seed)
    pattern = drawn(jax.random.uniform, jax.random.key(settings.seed), (1, *shape, 3))
    rule = optax.adam(settings.learning_rate, b1=BETA)
    fi_uap = settings.fi_uap()

    def init() -> State:
        own = jax.tree.map(jnp.copy, params)  # steps use up what they are given
        history = jnp.zeros((settings.epochs, 2), jnp.float32)
        return State(own, rule.init(own), history, jnp.int32(0))

    def mask(params) -> jax.Array:
        made = nnx.merge(graph, params)(pattern)[0]
        return settings.epsilon * (made / jax.lax.stop_gradient(jnp.abs(made).max()))

    def step(params, state: State, photos, valid, epoch, share) -> State:
        images = photos.astype(jnp.float32)
        made, pull = jax.vjp(mask, state.params)
        masked, clean = jnp.clip(images + made[None], 0, 255), normalize(embed(params, images))
        metrics, gradient = masks.loss_and_gradient(
            embed, fi_uap, params, masked, clean, valid, jnp.int32(0)
        )
        (slope,) = pull(-gradient.sum(0))  # clipping lets the gradient through, as published
        change, adam = rule.update(slope, state.adam)
        history = state.history.at[epoch].add(share * jnp.stack(metrics))
        return State(optax.apply_updates(state.params, change), adam, history, state.step + 1)  # pyright: ignore

    return Training(init, jax.jit(step, donate_argnums=1), jax.jit(mask))


def _batches(settings: Settings, photos: int, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(numbers of photos i64[B], valid f32[B]); the last repeats photos that do not count."""
    order = np.random.default_rng((settings.seed, epoch)).permutation(photos)
    size = min(settings.photos_per_step, photos)
    places = np.arange(-(-photos // size) * size).reshape(-1, size)
    return [(order[at % photos], (at < photos).astype(np.float32)) for at in places]
