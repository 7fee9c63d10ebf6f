"""PSNR and SSIM: closed forms, one window by hand, torch's convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax.evaluation.quality import C1, C2, psnr, ssim


def pictures(*shape: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth-ish picture and a noisy copy, u8[*shape,3]."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, 256, (*shape, 3))
    noisy = np.clip(clean + rng.integers(-40, 41, clean.shape), 0, 255)
    return clean.astype(np.uint8), noisy.astype(np.uint8)


def test_equal_pictures():
    clean, _ = pictures(2, 14, 13)
    np.testing.assert_array_equal(psnr(clean, clean), [np.inf, np.inf])
    np.testing.assert_array_equal(ssim(clean, clean), [1.0, 1.0])


def test_constant_shift():
    low, high = np.full((12, 12, 3), 100, np.uint8), np.full((12, 12, 3), 110, np.uint8)
    assert psnr(low, high) == pytest.approx(20 * np.log10(255 / 10))
    assert ssim(low, high) == pytest.approx((2 * 100 * 110 + C1) / (100**2 + 110**2 + C1))


def test_black_and_white_are_as_far_apart_as_pictures_can_be():
    black, white = np.zeros((11, 11, 3), np.uint8), np.full((11, 11, 3), 255, np.uint8)
    assert psnr(black, white) == 0.0
    assert ssim(black, white) == pytest.approx(C1 / (255**2 + C1))


@pytest.mark.parametrize("height", [1.0, 8.0])
def test_checkerboard_noise_on_a_flat_picture(height):
    # under the window its mean is nearly 0 and its variance height^2, so only C2 is left above
    flat = np.full((16, 16, 3), 128.0, np.float32)
    signs = np.where(np.indices((16, 16)).sum(0) % 2, 1.0, -1.0)[..., None]
    noisy = (flat + height * signs).astype(np.float32)
    assert psnr(flat, noisy) == pytest.approx(20 * np.log10(255 / height))
    assert ssim(flat, noisy) == pytest.approx(C2 / (height**2 + C2), abs=2e-4)


def test_one_window_by_hand():
    clean, noisy = pictures(11, 11)
    values = []
    for channel in range(3):
        weights, moments = 0.0, np.zeros(5)
        for y in range(11):
            for x in range(11):
                p, q = float(clean[y, x, channel]), float(noisy[y, x, channel])
                weight = np.exp(-((y - 5) ** 2 + (x - 5) ** 2) / (2 * 1.5**2))
                weights += weight
                moments += weight * np.array([p, q, p * p, q * q, p * q])
        mp, mq, pp, qq, pq = moments / weights
        values.append(
            ((2 * mp * mq + C1) * (2 * (pq - mp * mq) + C2))
            / ((mp**2 + mq**2 + C1) * (pp - mp**2 + qq - mq**2 + C2))
        )
    assert ssim(clean, noisy) == pytest.approx(np.mean(values), rel=1e-12)


def test_symmetric_bounded_and_the_same_in_both_types():
    clean, noisy = pictures(2, 3, 15, 20)
    for measure in (psnr, ssim):
        values = measure(clean, noisy)
        assert values.shape == (2, 3) and values.dtype == np.float64
        np.testing.assert_array_equal(values, measure(noisy, clean))
        np.testing.assert_array_equal(values, measure(clean.astype(np.float32), noisy))
        np.testing.assert_allclose(values[1, 2], measure(clean[1, 2], noisy[1, 2]), rtol=1e-12)
    assert (np.abs(ssim(clean, noisy)) < 1).all()
    assert ssim(clean, 255 - clean).max() < 0


def test_flipped_and_turned_pictures_are_as_similar():
    clean, noisy = pictures(17, 13)
    for turn in (lambda p: p[::-1], lambda p: p[:, ::-1], lambda p: p.swapaxes(0, 1)):
        assert ssim(turn(clean), turn(noisy)) == pytest.approx(ssim(clean, noisy), rel=1e-12)


def test_pictures_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(np.zeros((10, 20, 3)), np.zeros((10, 20, 3)))


@pytest.mark.torch
def test_ssim_is_that_of_a_two_dimensional_convolution():
    torch = pytest.importorskip("torch")
    clean, noisy = pictures(3, 24, 19)
    offsets = torch.arange(11, dtype=torch.float64) - 5
    bell = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.outer(bell, bell)
    window = (window / window.sum()).expand(3, 1, 11, 11)

    def blur(x):
        return torch.nn.functional.conv2d(x, window, groups=3)

    p, q = (torch.from_numpy(x).double().permute(0, 3, 1, 2) for x in (clean, noisy))
    mp, mq = blur(p), blur(q)
    vp, vq, cov = blur(p * p) - mp**2, blur(q * q) - mq**2, blur(p * q) - mp * mq
    above = (2 * mp * mq + C1) * (2 * cov + C2)
    below = (mp**2 + mq**2 + C1) * (vp + vq + C2)
    expected = (above / below).mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(ssim(clean, noisy), expected, rtol=1e-10)


def test_ssim_of_jax_arrays_is_the_same_and_differentiable():
    clean, noisy = (jnp.asarray(p, jnp.float32) for p in pictures(13, 12))
    value, gradient = jax.value_and_grad(ssim)(noisy, clean)
    assert float(value) == pytest.approx(ssim(np.asarray(noisy), np.asarray(clean)), abs=1e-5)
    step = np.random.default_rng(1).normal(size=noisy.shape)
    up, down = (ssim(np.asarray(noisy) + sign * 1e-3 * step, np.asarray(clean)) for sign in (1, -1))
    assert np.vdot(gradient, step) == pytest.approx((up - down) / 2e-3, rel=1e-2)
