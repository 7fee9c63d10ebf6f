"""Two forms of one network: that they embed alike, and that their image gradients are alike."""

import jax
import numpy as np

from opom_jax.networks.recognizer import Recognizer

TOLERANCE = 1e-4  # relative


def embedding_and_gradient(network: Recognizer, photos: np.ndarray) -> list[np.ndarray]:
    """[f32[B,D], f32[B,H,W,3]]: the second of a random direction of the embedding."""
    shape = len(photos), network.spec.embedding
    cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    @jax.jit
    def both(params, photos):
        embedding, vjp = jax.vjp(lambda x: network.embed(params, x), photos)
        return embedding, *vjp(cotangent)

    return [np.asarray(array) for array in both(network.params, photos)]


def check_agree(one: Recognizer, other: Recognizer, size: int) -> None:
    """On random photos f32[2,size,size,3], which the embeddings must tell apart."""
    photos = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    found, wanted = (embedding_and_gradient(network, photos) for network in (one, other))
    first, second = wanted[0]
    assert np.linalg.norm(first - second) > 0.01 * np.linalg.norm(wanted[0])
    for a, b in zip(found, wanted, strict=True):
        assert np.linalg.norm(b) > 0
        assert np.linalg.norm(a - b) < TOLERANCE * np.linalg.norm(b)
