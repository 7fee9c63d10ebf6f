"""How much a mask changes a picture: PSNR and SSIM."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PEAK = 255.0
WINDOW = 11
SIGMA = 1.5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2  # K1 and K2 of Wang et al.


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio 10 log10(255^2 / mean (a - b)^2), over pixels and channels.

    Args:
      a: u8 or f32 [...,H,W,3] in 0..255.
      b: of the same shape.

    Returns:
      f64[...] in dB, infinite for equal pictures.

    Example:
      >>> float(psnr(np.zeros((2, 2, 3)), np.full((2, 2, 3), 25.5)))
      20.0
    """
    error = np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean((-3, -2, -1))
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(PEAK**2 / error)


def ssim(a: Any, b: Any) -> Any:
    """Structural similarity, the mean over channels and windows that lie inside the picture.

        (2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2))

    with means, variances and covariance under an 11 x 11 Gaussian of sigma 1.5, C1 = (0.01 L)^2,
    C2 = (0.03 L)^2, L = 255, of each RGB channel. Source: Wang et al., "Image Quality Assessment:
    From Error Visibility to Structural Similarity", 2004, Eq. 13 to 17; the paper takes grey.

    Args:
      a: u8 or f32 [...,H,W,3] in 0..255, H and W at least 11. NumPy's are computed in float64 (some
        ten copies are held), JAX's in float32 and differentiably.
      b: of the same shape and library.

    Returns:
      f64[...] of NumPy or f32[...] of JAX, in -1..1, 1 for equal pictures.

    Raises:
      ValueError: pictures smaller than the window.
    """
    a, b = _floating(a), _floating(b)
    if min(a.shape[-3:-1]) < WINDOW:
        raise ValueError(f"SSIM wants pictures of at least {WINDOW} x {WINDOW}, not {a.shape}")
    weights = gaussian(WINDOW, SIGMA)
    mean_a, mean_b = blur(a, weights), blur(b, weights)
    covariance = blur(a * b, weights) - mean_a * mean_b
    variances = blur(a * a, weights) - mean_a**2 + (blur(b * b, weights) - mean_b**2)
    luminance = (2.0 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    structure = (2.0 * covariance + C2) / (variances + C2)
    return (luminance * structure).mean((-3, -2, -1))


def gaussian(window: int, sigma: float) -> tuple[float, ...]:
    """Weights of a Gaussian over an odd window, adding up to 1.

    Example:
      >>> [round(weight, 3) for weight in gaussian(3, 1.0)]
      [0.274, 0.452, 0.274]
    """
    weights = [math.exp(-0.5 * ((i - window // 2) / sigma) ** 2) for i in range(window)]
    return tuple(weight / sum(weights) for weight in weights)


def blur(x: Any, weights: Sequence[float]) -> Any:
    """Weighted means [...,H-w+1,W-w+1,C] of x [...,H,W,C] of NumPy or JAX under w x w windows, the
    product of `weights` with themselves.

    As products with a banded matrix, rows first, then columns: on the CPU XLA takes some thirty
    times as long for the gradient of a sum of shifted pictures.
    """
    for _ in range(2):
        *_, height, width, channels = x.shape
        inside = height - len(weights) + 1
        band = np.sum([w * np.eye(inside, height, i) for i, w in enumerate(weights)], 0)
        rows = band.astype(x.dtype) @ x.reshape(*x.shape[:-2], width * channels)
        x = rows.reshape(*rows.shape[:-1], width, channels).swapaxes(-3, -2)
    return x


def _floating(x: Any) -> Any:
    return jnp.asarray(x, jnp.float32) if isinstance(x, jax.Array) else np.asarray(x, np.float64)
