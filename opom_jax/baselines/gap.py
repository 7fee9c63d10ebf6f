"""GAP: a generator learns to turn one fixed pattern into one mask for everybody (section 3.3.3).

    U = epsilon G(Z) / |G(Z)|_inf,    maximise over G    sum_i |f(X_i) - f(X_i + U)|   (Eq. 17)

Generator, scaling, optimiser and batches are those of GAP (Poursaeed et al., CVPR 2018); the photos
are all photos of all people, ten times. In a folder every epoch leaves a checkpoint, from which an
interrupted training goes on with the same bits.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from opom_jax.baselines.generator import Generator
from opom_jax.baselines.settings import Made, Progress, Settings
from opom_jax.checkpoints import Checkpoints
from opom_jax.masks import generate as masks
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
    """The compiled pieces; see `training`."""

    init: Callable[[], State]
    step: Callable[..., State]
    mask: Callable[[nnx.State], jax.Array]


def gap(
    network: Recognizer,
    settings: Settings,
    people: masks.Batch,
    size: int,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Made:
    """One mask for everybody; see `methods.Baseline`. Metrics: objective and distance
    f32[P,epochs]."""
    del size
    settings.check()
    height, width = people.photos.shape[2:4]
    compiled = training(network.embed, settings, (height, width))
    record = {
        "settings": dataclasses.asdict(settings),
        "surrogate": network.digest,
        "photos": hashlib.sha256(np.ascontiguousarray(people.photos).data).hexdigest(),
    }
    with closing(Checkpoints(folder, record)) if folder else nullcontext() as checkpoints:
        state, first = compiled.init(), 0
        if checkpoints and checkpoints.latest():
            state = checkpoints.restore(jax.eval_shape(compiled.init))
            first = int(state.step) // len(list(_batches(settings, people, 0)))
        for epoch in range(first, settings.epochs):
            batches = list(_batches(settings, people, epoch))
            for rows, valid in batches:
                photos = people.photos[tuple(rows.T)]
                share = np.float32(1 / len(batches))
                state = compiled.step(network.params, state, photos, valid, epoch, share)
            if checkpoints:
                checkpoints.save(state)
            if progress:
                progress(epoch + 1, settings.epochs)
    objective, distance = np.asarray(state.history).T
    metrics = {"objective": objective, "distance": distance}
    return Made.of_everybody(len(people.ids), np.asarray(compiled.mask(state.params)), metrics)


@functools.cache
def training(
    embed: Callable[[Params, jax.Array], jax.Array], settings: Settings, shape: tuple[int, int]
) -> Training:
    """Compiles a training for one kind of network.

    Args:
      embed: of the surrogate.
      settings: checked.
      shape: (H, W).

    Returns:
      init: () -> State.
      step: (params, State, photos u8[B,H,W,C], valid f32[B], epoch, share of the step in the
        epoch's history) -> State; the state given is used up.
      mask: the generator's parameters -> f32[H,W,C] in [-epsilon, epsilon].
    """
    build, draw = jax.random.split(jax.random.key(settings.seed))
    pattern = jax.random.uniform(draw, (1, *shape, 3))

    def generator() -> Generator:
        return Generator(settings.width, settings.blocks, rngs=nnx.Rngs(params=build))

    graph, _ = nnx.split(nnx.eval_shape(generator))
    rule = optax.adam(settings.learning_rate, b1=BETA)
    fi_uap = settings.fi_uap()

    def init() -> State:
        params = nnx.split(generator())[1]
        history = jnp.zeros((settings.epochs, 2), jnp.float32)
        return State(params, rule.init(params), history, jnp.int32(0))

    def mask(params) -> jax.Array:
        made = nnx.merge(graph, params)(pattern)[0]
        return made * jax.lax.stop_gradient(settings.epsilon / jnp.abs(made).max())

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

    return Training(jax.jit(init), jax.jit(step, donate_argnums=1), jax.jit(mask))


def _batches(
    settings: Settings, people: masks.Batch, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(person and place of each photo i64[B,2], valid f32[B]); the last repeats photos that do not
    count."""
    rows = np.argwhere(people.valid > 0)
    rows = rows[np.random.default_rng((settings.seed, epoch)).permutation(len(rows))]
    size = min(settings.photos_per_step, len(rows))
    for start in range(0, len(rows), size):
        places = np.arange(start, start + size)
        yield rows[places % len(rows)], (places < len(rows)).astype(np.float32)
