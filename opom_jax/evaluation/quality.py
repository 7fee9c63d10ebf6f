"""How much a mask changes a picture: PSNR and SSIM."""

import numpy as np

PEAK = 255.0
WINDOW = 11
SIGMA = 1.5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2  # K1 and K2 of Wang et al.

_WEIGHTS = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
_WEIGHTS /= _WEIGHTS.sum()


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


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity, the mean over channels and windows that lie inside the picture.

        (2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2))

    with means, variances and covariance under an 11 x 11 Gaussian of sigma 1.5, C1 = (0.01 L)^2,
    C2 = (0.03 L)^2, L = 255, of each RGB channel. Source: Wang et al., "Image Quality Assessment:
    From Error Visibility to Structural Similarity", 2004, Eq. 13 to 17; the paper takes grey.

    Args:
      a: u8 or f32 [...,H,W,3] in 0..255, H and W at least 11. Some ten float64 copies are held.
      b: of the same shape.

    Returns:
      f64[...] in -1..1, 1 for equal pictures.

    Raises:
      ValueError: pictures smaller than the window.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(a.shape[-3:-1]) < WINDOW:
        raise ValueError(f"SSIM wants pictures of at least {WINDOW} x {WINDOW}, not {a.shape}")
    mean_a, mean_b = _blur(a), _blur(b)
    covariance = _blur(a * b) - mean_a * mean_b
    variances = _blur(a * a) - mean_a**2 + (_blur(b * b) - mean_b**2)
    luminance = (2.0 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    structure = (2.0 * covariance + C2) / (variances + C2)
    return (luminance * structure).mean((-3, -2, -1))


def _blur(x: np.ndarray) -> np.ndarray:
    """Gaussian means f64[...,H-10,W-10,3] of x f64[...,H,W,3], one axis after the other."""
    for axis in (-3, -2):
        size = x.shape[axis] - WINDOW + 1
        places = np.moveaxis(x, axis, 0)
        total = sum(weight * places[i : i + size] for i, weight in enumerate(_WEIGHTS))
        x = np.moveaxis(np.asarray(total), 0, axis)
    return x
