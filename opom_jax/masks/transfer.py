"""What makes the masks of one network work on others: input diversity."""

import jax
import jax.numpy as jnp


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
