"""What image-specific masks increase: the distance of FIM and APF, and LowKey's objective.

An objective takes the surrogates, a `Scene` and the masked photo f32[H,W,3] and returns a scalar.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from opom_jax.evaluation.quality import blur, gaussian, ssim
from opom_jax.networks.recognizer import NORM_FLOOR, normalize

SMOOTHING = gaussian(7, 3.0)  # LowKey's

Embed = Callable[[jax.Array], jax.Array]  # images f32[B,H,W,3] -> features f32[B,D]
Distance = Callable[[jax.Array, jax.Array], jax.Array]  # of two photos f32[H,W,3]


class Scene(NamedTuple):
    """What stays the same for one photo.

    Attributes:
      photo: f32[H,W,3] in 0..255.
      clean: its features by every network, f32[D] each, not normalised.
      key: of its random numbers; 0 folded in is the start's, 1 + t that of step t.
    """

    photo: jax.Array
    clean: tuple[jax.Array, ...]
    key: jax.Array


Objective = Callable[[Sequence[Embed], Scene, jax.Array], jax.Array]


def feature_distance(networks: Sequence[Embed], scene: Scene, masked: jax.Array) -> jax.Array:
    """|f(x') / |f(x')| - f(x) / |f(x)||^2, the mean over networks: Eq. 17 for one photo.

    Source: FIM, Zhong and Deng, "Towards Transferable Adversarial Attack against Deep Face
    Recognition", 2021. APF increases the same distance at the user's end (Zhang et al.,
    "Adversarial Privacy-preserving Filter", 2020).

    Args:
      networks: the surrogates.
      scene: the photo.
      masked: f32[H,W,3].

    Returns:
      f32[] in 0..4.
    """
    apart = [
        normalize(network(masked[None])[0]) - normalize(clean)
        for network, clean in zip(networks, scene.clean, strict=True)
    ]
    return jnp.mean(jnp.stack([jnp.vdot(each, each) for each in apart]))


def lowkey(distance: Distance, weight: float = 0.05) -> Objective:
    """The objective of LowKey, with n networks and a smoothing G (7 x 7, sigma 3, reflected edges):

        1/2n sum_i (|f_i(x') - f_i(x)|^2 + |f_i(G(x')) - f_i(x)|^2) / |f_i(x)| - weight distance

    of features that are not normalised. Source: Cherepanova et al., "LowKey: Leveraging
    Adversarial Attacks to Protect Social Media Users from Facial Recognition", ICLR 2021; with the
    weight 0.05 the published code takes the mean over the D numbers of a feature for |.|^2, and so
    does this.

    Args:
      distance: perceptual, of the photo and the masked photo. The paper's LPIPS needs a network
        trained on ImageNet; one that is at hand goes in here.
      weight: of the distance (the paper's alpha).
    """

    def objective(networks: Sequence[Embed], scene: Scene, masked: jax.Array) -> jax.Array:
        views = jnp.stack([masked, smooth(masked)])
        moved = [
            jnp.mean((network(views) - clean[None]) ** 2)
            / jnp.maximum(jnp.linalg.norm(clean), NORM_FLOOR)
            for network, clean in zip(networks, scene.clean, strict=True)
        ]
        return jnp.mean(jnp.stack(moved)) - weight * distance(scene.photo, masked)

    return objective


def smooth(photo: jax.Array) -> jax.Array:
    """LowKey's G: f32[H,W,3] -> f32[H,W,3]."""
    edge = len(SMOOTHING) // 2
    return blur(jnp.pad(photo, ((edge, edge), (edge, edge), (0, 0)), mode="reflect"), SMOOTHING)


def ssim_distance(photo: jax.Array, masked: jax.Array) -> jax.Array:
    """1 - SSIM, in 0..2: stands in for LPIPS."""
    return 1.0 - ssim(photo, masked)
