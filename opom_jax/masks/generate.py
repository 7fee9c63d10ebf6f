"""Masks for many people at once: one jitted step, vmapped over people, looped on the host.

The step for one person reads like the paper's algorithm; `vmap` with unmapped weights merges
P x N photos into one convolution batch. The loop over steps stays on the host because gradients of
convolutions inside a compiled loop leave XLA's fast kernels on the CPU (docs/performance.md).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from opom_jax import parallel
from opom_jax.draws import drawn
from opom_jax.errors import InputError
from opom_jax.masks import transfer
from opom_jax.masks.batches import Batch, Made, Progress, equal_batches
from opom_jax.masks.objectives import METHODS, Scene, objective
from opom_jax.masks.transfer import Embed
from opom_jax.masks.update import FORMS, Rule, State, init, update
from opom_jax.networks.recognizer import Params, Recognizer, Team, normalize

STARTS = ("published", "person")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides a mask besides photos and network; defaults as published.

    Attributes:
      method: name of `objectives.METHODS`.
      epsilon: largest change of a pixel, 0..255 scale.
      step_size: change of a pixel in a step (the paper's alpha).
      steps: T.
      initial_steps: ClassCenter steps with which the convex hull starts.
      lower: smallest coefficient of the reduced hull; 0 is the convex hull.
      upper: largest; 1 is the convex hull.
      momentum: decay of the accumulated gradient; 0 for none.
      dropout: share of the convolutions' outputs that DFANet drops; 0 for none.
      form: "published" or "paper", of both objective and update.
      seed: of the random start.
      start: "published" (the same noise for everybody, the numbers torch draws from this seed) or
        "person" (every person's own noise).
    """

    method: str = "convex_hull"
    epsilon: float = 8.0
    step_size: float = 1.0
    steps: int = 16
    initial_steps: int = 5
    lower: float = 0.0
    upper: float = 1.0
    momentum: float = 0.0
    dropout: float = 0.0
    form: str = "published"
    seed: int = 0
    start: str = "published"

    def check(self) -> None:
        """Raises InputError naming the first setting that is out of range."""
        for name, ok, wanted in (
            ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("start", self.start in STARTS, f"one of {', '.join(STARTS)}"),
            ("form", self.form in FORMS, f"one of {', '.join(FORMS)}"),
            ("epsilon", 0 < self.epsilon <= 255, "above 0 and at most 255"),
            ("step_size", 0 < self.step_size <= 255, "above 0 and at most 255"),
            ("steps", 1 <= self.steps <= 1_000_000, "at least 1 and at most 1000000"),
            ("initial_steps", 0 <= self.initial_steps <= 1_000_000, "between 0 and 1000000"),
            ("lower", 0 <= self.lower <= 1, "between 0 and 1"),
            ("upper", self.lower <= self.upper <= 1, "between lower and 1"),
            ("momentum", 0 <= self.momentum <= 1, "between 0 and 1"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
            ("seed", 0 <= self.seed < 2**32, "between 0 and 4294967295"),
        ):
            if not ok:
                raise InputError(f"{name}={getattr(self, name)!r} must be {wanted}.")

    def check_photos(self, name: str, photos: int) -> None:
        """Raises InputError if a person's number of photos leaves the reduced hull empty."""
        if photos * self.lower > 1 + 1e-6 or photos * self.upper < 1 - 1e-6:
            raise InputError(
                f"{name} has {photos} photos, for which no coefficients between "
                f"lower={self.lower} and upper={self.upper} add up to 1; change lower or upper."
            )


class Metrics(NamedTuple):
    """Of one step, before it moved: f32[P] each.

    Attributes:
      objective: what the method increases.
      distance: mean distance of the masked features from the clean feature of their own photo, in
        0..2; with dropout, as the step's own networks see them.
    """

    objective: jax.Array
    distance: jax.Array


class Generator(NamedTuple):
    """The compiled pieces for one network and one `Settings`; see `generator`."""

    start: Callable
    step: Callable


def published_noise(settings: Settings, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform noise f32[N,H,W,C] in [-epsilon, epsilon), the published code's own.

    FIM seeds torch anew for every person, so all start from these numbers: torch's uniform_ on the
    CPU is 24 bits of each MT19937 word, drawn in the order N, C, H, W, so photo i's draw does not
    depend on how many follow.
    """
    n, height, width, channels = shape
    random = np.random.RandomState(settings.seed)
    words = random.randint(0, 2**32, (n, channels, height, width), dtype=np.uint32)
    uniform = (words & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)
    noise = uniform * np.float32(2 * settings.epsilon) - np.float32(settings.epsilon)
    return noise.transpose(0, 2, 3, 1)


def person_noise(settings: Settings, person: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform noise f32[N,H,W,C] in [-epsilon, epsilon].

    Each photo's draw depends on seed, person and its place only, never on padding or batch.
    """
    key = jax.random.fold_in(jax.random.key(settings.seed), person)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(shape[0]))
    limits = {"minval": -settings.epsilon, "maxval": settings.epsilon}
    return jax.vmap(lambda key: drawn(jax.random.uniform, key, shape[1:], **limits))(keys)


def rule(settings: Settings) -> Rule:
    """The update rule of the settings."""
    return Rule(settings.epsilon, settings.step_size, settings.momentum, settings.form)


def of_step(
    embed: Embed,
    settings: Settings,
    params: Params,
    person: jax.Array,
    count: jax.Array,
    images: jax.Array,
    clean: jax.Array,
    place: int = 0,
) -> tuple[Embed, jax.Array]:
    """The network that one step of a person attacks, and the clean features f32[N,D] of the images
    f32[N,H,W,C]; with dropout both have a draw of their own, as published, and so has every place
    in a team."""
    if not settings.dropout:
        return embed, clean
    keys = transfer.keys(settings.seed, person, count)
    keys = keys if place == 0 else [jax.random.fold_in(key, place) for key in keys]
    draw = partial(transfer.dfanet, embed, settings.dropout, settings.form)
    return draw(keys[1]), normalize(draw(keys[0])(params, images))


def loss_and_gradient(
    embed: Embed,
    settings: Settings,
    params: Params,
    masked: jax.Array,
    clean: jax.Array,
    valid: jax.Array,
    step: jax.Array,
) -> tuple[Metrics, jax.Array]:
    """Objective and its gradient at the masked photos of one person.

    Args:
      embed: of the surrogate, see `Recognizer`.
      settings: method, bounds, form.
      params: the network's weights.
      masked: f32[N,H,W,C].
      clean: f32[N,D] unit features of the photos.
      valid: f32[N].
      step: i32[], counts from 0.

    Returns:
      (Metrics of scalars, gradient f32[N,H,W,C]).
    """
    increase = objective(settings.method, settings.form)

    def scalar(images):
        features = normalize(embed(params, images))
        warm = step < settings.initial_steps
        bounds = jnp.float32(settings.lower), jnp.float32(settings.upper)
        value = increase(Scene(clean, features, valid, warm, *bounds))
        moved = jnp.linalg.norm(features - clean, axis=-1)
        return value, valid @ moved / valid.sum()

    (value, distance), gradient = jax.value_and_grad(scalar, has_aux=True)(masked)
    return Metrics(value, distance), gradient


def generator(network: Recognizer | Team, settings: Settings) -> Generator:
    """Compiles the start and the step of a batch of people, once for all networks of a kind.

    The objective of a team is the sum of its members', one after the other: mapped over them,
    convolutions would have a gradient that is slow. Its params and clean features are tuples.

    Returns:
      start: (params, ids i32[P], photos u8[P,N,H,W,C]) -> (State, clean f32[P,N,D]).
      step: (params, State, ids, photos, clean, valid f32[P,N], i32[]) -> (State, Metrics of
        f32[P]); the state is donated. With dropout it draws clean features of its own.
    """
    settings.check()
    return _generator(network.embed, settings)


def _each(embed: Embed | tuple[Embed, ...], *others: Any) -> list[tuple]:
    """(embed, its params, ...) of every surrogate."""
    if isinstance(embed, tuple):
        return list(zip(embed, *others, strict=True))
    return [(embed, *others)]


@functools.cache
def _generator(embed: Embed | tuple[Embed, ...], settings: Settings) -> Generator:
    def begin(params, person, noise, photos):
        images = photos.astype(jnp.float32)
        noise = person_noise(settings, person, images.shape) if noise is None else noise
        state = init(rule(settings), images, noise)
        clean = tuple(normalize(own(p, images)) for own, p in _each(embed, params))
        return state, clean if isinstance(embed, tuple) else clean[0]

    begun = parallel.OverPeople(begin, (None, 0, None, 0))

    def start(params, ids, photos):
        same = settings.start == "published"
        noise = published_noise(settings, photos.shape[1:]) if same else None
        return begun(params, ids, noise, photos)

    def step(params, state: State, person, photos, clean, valid, count):
        images, found = photos.astype(jnp.float32), []
        for place, (one, weights, own) in enumerate(_each(embed, params, clean)):
            one, own = of_step(one, settings, weights, person, count, images, own, place)
            given = weights, state.masked, own, valid, count
            found.append(loss_and_gradient(one, settings, *given))
        metrics, gradients = zip(*found, strict=True)
        gradient = functools.reduce(jnp.add, gradients)
        return update(rule(settings), state, gradient, images, valid), _together(metrics)

    return Generator(start, parallel.OverPeople(step, (None, 0, 0, 0, 0, 0, None), donate=[1]))


def _together(metrics: Sequence[Metrics]) -> Metrics:
    """Of a team: the sum of the objectives, the mean of the distances."""
    objectives, distances = zip(*metrics, strict=True)
    distance = functools.reduce(jnp.add, distances) / len(metrics)
    return Metrics(functools.reduce(jnp.add, objectives), distance)


def generate(
    compiled: Generator, params: Params, settings: Settings, batch: Batch
) -> tuple[np.ndarray, Metrics]:
    """Masks of one batch.

    Args:
      compiled: of `generator`, for the surrogate and these settings.
      params: of the surrogate, `ready()`; a tuple of a team.
      settings: of the masks.
      batch: on the host or the devices.

    Returns:
      (masks f32[P,H,W,C] in [-epsilon, epsilon], Metrics of f32[P,T]).
    """
    ids, photos, valid = map(jnp.asarray, batch)
    params = parallel.replicated(params, ids)
    state, clean = compiled.start(params, ids, photos)
    history = []
    for count in range(settings.steps):
        state, metrics = compiled.step(params, state, ids, photos, clean, valid, np.int32(count))
        history.append(metrics)
    stacked = jax.tree.map(lambda *values: np.stack(values, 1), *jax.device_get(history))
    return np.asarray(state.mask), stacked


def make(
    network: Recognizer | Team,
    settings: Settings,
    people: Batch,
    size: int,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Made:
    """Masks of people; see `methods.Maker`. Metrics: objective and distance f32[P,T]."""
    del folder
    compiled, kept, done = generator(network, settings), [], 0
    params = network.ready()
    for count, batch in equal_batches(people, size):
        params = parallel.replicated(params, batch.ids)
        made, metrics = generate(compiled, params, settings, batch)
        kept.append([array[:count] for array in (made, *metrics)])
        done += count
        if progress:
            progress(done, len(people.ids))
    joined, *numbers = (np.concatenate(rows) for rows in zip(*kept, strict=True))
    return Made(joined, dict(zip(Metrics._fields, numbers, strict=True)))


def check_network(network: Recognizer, settings: Settings) -> None:
    """Raises InputError if dropout finds nothing to drop in a network; nothing is computed."""
    if not settings.dropout:
        return
    size = network.spec.size
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    nothing = lambda _: lambda _, output: output  # noqa: E731
    jax.eval_shape(lambda p, x: network.embed(p, x, nothing), network.params, image)
