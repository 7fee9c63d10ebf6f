"""One step of training and one batch of embeddings, compiled once and spread over devices.

The batch is split over a mesh of devices, weights and optimiser state are on all of them; the step
is written for the whole batch, so that batch norm sees all of it wherever its photos are.
Axes: `B` batch, `D` embedding, `K` people of the training set.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from optax.contrib import MuonDimensionNumbers, muon

from opom_jax.networks import recognizer
from opom_jax.networks.layers import abstract
from opom_jax.networks.registry import NETWORKS
from opom_jax.training.heads import HEADS, unit
from opom_jax.training.settings import Settings

Devices = Sequence[Any]  # some of jax.local_devices()
MOMENTUM = 0.9
MUON_ADAM = 0.2  # learning rate of what Muon leaves to Adam, as a share of its own
HEAD_SPREAD = 0.01  # of the first class weights


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
      params: weights of the network, float32.
      statistics: running means and variances of its batch norms.
      head: class weights f32[D,K].
      optimizer: state of optax.
      step: i32, steps done.
    """

    params: nnx.State
    statistics: nnx.State
    head: jax.Array
    optimizer: Any
    step: jax.Array


class Metrics(NamedTuple):
    """Of one step, before it moved: f32 scalars.

    Attributes:
      loss: mean of the batch.
      gradient: length of the gradient over all weights, before clipping.
    """

    loss: jax.Array
    gradient: jax.Array


class Trainer(NamedTuple):
    """The compiled pieces for one `Settings`.

    Attributes:
      init: () -> TrainState, on all devices.
      update: (TrainState, images u8[B,H,W,3], labels i32[B]) -> (TrainState, Metrics); the state
        given is used up.
      embed: (params, statistics, images u8[B,H,W,3]) -> unit features f32[B,D], in inference mode.
      split: an array with leading axis B -> the same over the devices.
    """

    init: Callable[[], TrainState]
    update: Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, Metrics]]
    embed: Callable[[nnx.State, nnx.State, jax.Array], jax.Array]
    split: Callable[[np.ndarray], jax.Array]


def learning_rate(settings: Settings) -> Callable[[Any], Any]:
    """Step (from 0) -> rate: linear warm-up, then half a cosine that reaches zero at the end."""
    warmup, rest = settings.warmup, max(1, settings.steps - settings.warmup)

    def rate(step):
        grown = jnp.minimum(1.0, (step + 1) / max(1, warmup))
        falling = 0.5 + 0.5 * jnp.cos(jnp.pi * jnp.clip((step - warmup) / rest, 0, 1))
        return settings.learning_rate * grown * falling

    return rate


def optimizer(settings: Settings) -> optax.GradientTransformation:
    """Clipping, then SGD with momentum (decay added to the gradient, as torch does), AdamW or Muon.

    Muon (Jordan et al., 2024) moves every dense kernel by the nearest orthogonal matrix of its
    momentum; class weights, depthwise kernels and vectors are left to Adam.
    """
    rate = learning_rate(settings)
    clip = optax.clip_by_global_norm(settings.clip)
    if settings.optimizer == "adamw":
        return optax.chain(
            clip, optax.adamw(rate, weight_decay=settings.weight_decay, mask=_decays)
        )
    if settings.optimizer == "muon":
        rule = muon(
            rate,
            weight_decay=settings.weight_decay,
            adam_learning_rate=lambda step: MUON_ADAM * rate(step),
            muon_weight_dimension_numbers=_matrices,
        )
        return optax.chain(clip, rule)
    decay = optax.add_decayed_weights(settings.weight_decay, mask=_decays)
    return optax.chain(clip, decay, optax.sgd(rate, momentum=MOMENTUM))


def trainer(settings: Settings, people: int, devices: Devices) -> Trainer:
    """Makes the functions of a run; nothing is computed yet.

    Args:
      settings: checked.
      people: K.
      devices: their number divides settings.batch.
    """
    spec, head = NETWORKS[settings.network], HEADS[settings.head]
    scale = settings.scale or head.scale
    margin = settings.margin if settings.margin >= 0 else head.margin
    rule = optimizer(settings)
    model = abstract(spec.build)
    training, inference = (_graph(model, mode) for mode in (model.train, model.eval))
    mesh = Mesh(np.array(devices), ("data",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    over_batch = NamedSharding(mesh, PartitionSpec("data"))

    def init() -> TrainState:
        _, *parts = nnx.split(spec.build(nnx.Rngs(settings.seed)), nnx.Param, ...)
        # jnp.full and its like give weak types, for which the second step would compile again.
        params, statistics = jax.tree.map(lambda array: array.astype(array.dtype), parts)
        key = jax.random.fold_in(jax.random.key(settings.seed), people)
        weights = HEAD_SPREAD * jax.random.normal(key, (spec.embedding, people))
        return TrainState(params, statistics, weights, rule.init((params, weights)), jnp.int32(0))

    def forward(graph, params, statistics, images):
        kernels = recognizer.cast(params, settings.precision)
        network = nnx.merge(graph, kernels, statistics, copy=True)
        embedding, _ = network(spec.preprocess(images.astype(jnp.float32)))
        return embedding.astype(jnp.float32), nnx.split(network, nnx.Param, ...)[2]

    def loss(weights, statistics, images, labels):
        params, classes = weights
        embedding, statistics = forward(training, params, statistics, images)
        return head.loss(embedding, classes, labels, scale, margin), statistics

    def update(state: TrainState, images, labels) -> tuple[TrainState, Metrics]:
        weights = state.params, state.head
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, statistics), slope = gradient(weights, state.statistics, images, labels)
        change, kept = rule.update(slope, state.optimizer, weights)
        params, classes = cast(tuple, optax.apply_updates(weights, change))
        state = TrainState(params, statistics, classes, kept, state.step + 1)
        return state, Metrics(value, optax.tree.norm(slope))

    def embed(params, statistics, images):
        return unit(forward(inference, params, statistics, images)[0], 1)

    return Trainer(
        jax.jit(init, out_shardings=everywhere),
        jax.jit(update, donate_argnums=0, out_shardings=everywhere),
        jax.jit(embed, out_shardings=everywhere),
        lambda array: jax.device_put(array, over_batch),
    )


def _graph(model: nnx.Module, mode: Callable[[], None]) -> nnx.GraphDef:
    mode()
    return nnx.split(model, nnx.Param, ...)[0]


def _decays(weights) -> Any:
    """Whether each array is a kernel or class weights, and no norm, bias or slope."""
    return jax.tree.map(lambda array: array.ndim > 1, weights)


def _matrices(weights) -> Any:
    """How Muon reads each array as a matrix (inputs, outputs); None where it is to leave it."""
    params, _ = weights

    def shape(kernel):
        inputs = tuple(range(kernel.ndim - 1))
        return MuonDimensionNumbers(inputs, kernel.ndim - 1) if kernel.ndim in (2, 4) else None

    return jax.tree.map(shape, params), None
