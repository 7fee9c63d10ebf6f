"""What lets masks work against networks that nobody has: at every step another surrogate (DFANet)
or another view of the photos (input diversity)."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from opom_jax.networks.recognizer import Params

Embed = Callable[..., jax.Array]  # (params, images f32[N,H,W,3]) -> f32[N,D], see `Recognizer`
DROPOUT = 2**32 - 1  # what dropout folds in where the random start folds in a person's number


def keys(seed: int, person: jax.Array | int, step: jax.Array | int) -> jax.Array:
    """Keys key[2] of one person's step: for the clean photos and for the masked ones.

    They follow from the seed, the person's number and the step's, never from a batch.
    """
    key = jax.random.fold_in(jax.random.key(seed), DROPOUT)
    key = jax.random.fold_in(jax.random.fold_in(key, person), step)
    return jax.random.split(key)


def dfanet(embed: Embed, rate: float, form: str, key: jax.Array) -> Embed:
    """A network of one step of DFANet (paper Eq. 15): every element that a convolution puts out is
    dropped on its own, for each photo anew.

    Args:
      embed: of the surrogate.
      rate: probability of being dropped, 0 <= rate < 1; 0.1 as published.
      form: "published" divides what is kept by 1 - rate, as torch's Dropout does; "paper" is the
        plain product with the Bernoulli mask.
      key: of `keys`. A photo's draw depends on it and on the photo's place only.

    Returns:
      (params, images f32[N,H,W,3]) -> f32[N,D].
    """
    scale = 1 / (1 - rate) if form == "published" else 1.0
    least = jnp.uint32(int(rate * 2**32))

    def embed_dropped(params: Params, images: jax.Array) -> jax.Array:
        def dropping(places: int) -> Callable[[int, jax.Array], jax.Array]:
            words = seeds(key, images.shape[0], places)

            def drop(place: int, output: jax.Array) -> jax.Array:
                kept = uniform_bits(words[:, place], output.shape[1:]) >= least
                return jnp.where(kept, output * scale, 0)

            return drop

        return embed(params, images, dropping)

    return embed_dropped


def seeds(key: jax.Array, photos: int, places: int) -> jax.Array:
    """The seeds u32[N,L,2] of every photo's draw at every place, from a key of `keys`.

    All at once and along one axis: XLA on the CPU compiles them in a fraction of the time that
    a draw at each place takes (docs/performance.md).
    """
    own = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(photos))
    place = jnp.tile(jnp.arange(places), photos)
    each = jax.vmap(jax.random.fold_in)(jnp.repeat(own, places), place)
    return jax.vmap(lambda one: jax.random.bits(one, (2,)))(each).reshape(photos, places, 2)


def uniform_bits(words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random bits u32[N, *shape] of the seeds u32[N,2].

    Two rounds of a hash of the element's index: a step of a small network needs millions of them,
    and jax's own generator takes several times as long as the network (docs/performance.md).
    """
    index = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(1, *shape)
    first, second = (words[:, k].reshape(-1, *[1] * len(shape)) for k in (0, 1))
    return _mixed(_mixed(index ^ first) ^ second)


def _mixed(x: jax.Array) -> jax.Array:
    """A bijection of u32 in which every bit of x moves every bit of the result (lowbias32)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def input_diversity(
    key: jax.Array, images: jax.Array, probability: float, smallest: int
) -> jax.Array:
    """Every image, with a probability, shrunk to a random side at a random place on black.

    Source: Xie et al., "Improving Transferability of Adversarial Examples with Input Diversity",
    CVPR 2019. The paper enlarges 299 pixels to a random side below 330 and pads to 330; a
    recogniser's input has a fixed side S, so here the padding leads back to S. Bilinear, linear in
    the images and so differentiable; one compilation for all sides.

    Args:
      key: of JAX; image i draws from `fold_in(key, i)`, whatever images follow.
      images: f32[N,S,S,3] in 0..255.
      probability: of an image to be changed.
      smallest: least side, 1 <= smallest <= S; sides smallest..S and places are equally likely.

    Returns:
      f32[N,S,S,3].
    """

    def view(number: jax.Array, image: jax.Array) -> jax.Array:
        chance, size, place = jax.random.split(jax.random.fold_in(key, number), 3)
        whole = image.shape[0]
        side = jax.random.randint(size, (), smallest, whole + 1)
        corner = jax.random.randint(place, (2,), 0, whole - side + 1)
        scale = jnp.full(2, side / whole, jnp.float32)
        moved = jax.image.scale_and_translate(
            image, image.shape, (0, 1), scale, corner.astype(jnp.float32), "linear", antialias=False
        )
        return jnp.where(jax.random.bernoulli(chance, probability), moved, image)

    return jax.vmap(view)(jnp.arange(len(images)), images)
