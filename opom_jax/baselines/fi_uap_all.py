"""FI-UAP-all: one mask for everybody, FI-UAP on the photos of all people together (section 3.3.2).

Every step takes the sign of the mean gradient over all photos. People pass through the device in
batches that leave each person's sums behind; the sums are added one person after the other, so
that neither the device's memory grows with the people nor the mask depends on the batches. With one
person it is FI-UAP.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from opom_jax import parallel
from opom_jax.baselines.settings import Settings
from opom_jax.masks import generate as masks
from opom_jax.masks.batches import Batch, Made, Progress, equal_batches
from opom_jax.networks.recognizer import Params, Recognizer


class Sums(NamedTuple):
    """What photos add to a step, in sums over them; of batches, with a leading axis P.

    Attributes:
      photos: f32[], their number.
      gradient: f32[H,W,C], of the objective at the masked photos.
      moved: f32[H,W,C], masked minus clean photo: what clipping to 0..255 left of the mask.
      objective: f32[].
      distance: f32[], from each clean feature.
    """

    photos: jax.Array | np.ndarray
    gradient: jax.Array | np.ndarray
    moved: jax.Array | np.ndarray
    objective: jax.Array | np.ndarray
    distance: jax.Array | np.ndarray


def fi_uap_all(
    network: Recognizer,
    settings: Settings,
    people: Batch,
    size: int,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Made:
    """One mask for everybody; see `methods.Maker`. Metrics: objective and distance f32[P,T]."""
    del folder
    settings.check()
    fi_uap = settings.fi_uap()
    start, step = masks.generator(network, fi_uap).start, _step(network.embed, fi_uap)
    params, clean, mask, history = network.ready(), [], None, []
    for count in range(settings.steps):
        total = Sums(*(np.zeros(()) for _ in Sums._fields))
        for k, (own, batch) in enumerate(equal_batches(people, size)):
            masked, params = None, parallel.replicated(params, batch.ids)
            if mask is None:
                state, features = start(params, batch.ids, batch.photos)
                masked = state.masked
                clean.append(np.asarray(features))  # on the host: there may be many people
            shares = step(params, mask, masked, batch.photos, clean[k], batch.valid)
            total = _added(total, jax.device_get(shares), own)
        mask = _moved(fi_uap, total)
        photos = total.photos if settings.form == "published" else 1.0
        history.append((total.objective / photos, total.distance / total.photos))
        if progress:
            progress(count + 1, settings.steps)
    objective, distance = np.array(history).T
    metrics = {"objective": objective, "distance": distance}
    return Made.of_everybody(len(people.ids), np.asarray(mask), metrics)


@functools.cache
def _step(embed: Callable[[Params, jax.Array], jax.Array], settings: masks.Settings) -> Callable:
    """(params, mask, masked, photos, clean, valid) -> Sums of each person; the photos masked with
    `mask` f32[H,W,C] or, where that is None, as `masked` f32[P,N,H,W,C] has them."""

    def one(params, mask, masked, photos, clean, valid) -> Sums:
        images = photos.astype(jnp.float32)
        if mask is not None:
            masked = images + mask[None]
            masked = jnp.clip(masked, 0, 255) if settings.form == "published" else masked
        metrics, gradient = masks.loss_and_gradient(
            embed, settings, params, masked, clean, valid, jnp.int32(0)
        )
        photos = valid.sum()
        weight = photos if settings.form == "published" else 1.0  # a mean over photos, or a sum
        return Sums(
            photos,
            weight * gradient.sum(0),
            jnp.tensordot(valid, masked - images, 1),
            weight * metrics.objective,
            photos * metrics.distance,
        )

    return parallel.OverPeople(one, (None, None, 0, 0, 0, 0))


def _added(total: Sums, shares: Sums, people: int) -> Sums:
    """In float64, each person alone: no batch changes the rounding."""
    for k in range(people):
        total = Sums(*(t + s[k] for t, s in zip(total, shares, strict=True)))
    return total


def _moved(settings: masks.Settings, total: Sums) -> np.ndarray:
    """The next mask: that of this step, as clipping left it, and a step up the mean gradient."""
    mask = total.moved / total.photos + settings.step_size * np.sign(total.gradient)
    return np.clip(mask, -settings.epsilon, settings.epsilon).astype(np.float32)
