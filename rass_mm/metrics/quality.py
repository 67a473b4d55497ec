"""PSNR and SSIM of single images, as reported in the restoration literature: on BT.601 luma, without a border crop."""

import numpy as np
from scipy.ndimage import correlate1d

from rass_mm.errors import DataError
from rass_mm.metrics.niqe import niqe

__all__ = ['niqe', 'psnr', 'ssim']

WINDOW = 11
SIGMA = 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
FLOOR = 1e-8
"""Added to the mean squared error, as in published PSNR values. It lowers a PSNR of 38 dB by 0.0003 dB."""


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Computes the peak signal-to-noise ratio of the luma in dB. Higher is better.

    The result for identical images is inf. For all other images it is at most 80 dB, because a constant is added to the
    mean squared error, as in published values.

    Args:
        image: (H, W, 3) RGB in 0..255, uint8 or floating point.
        truth: the clean image, of the same shape and range.

    Raises:
        DataError: the shapes differ or are not (H, W, 3).
    """
    _check(image, truth)
    error = np.mean((_luma(image) - _luma(truth)) ** 2)
    return float(-10 * np.log10(error + FLOOR)) if error > 0 else float('inf')


def ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """Computes the structural similarity of the rounded luma. Higher is better; the value for identical images is 1.

    The result is the mean over all windows of 11x11 pixels that are completely inside the image. The contrast-structure
    term is clamped to at least 0, as in published values. Without the clamp, values are up to 0.003 lower.

    Args:
        image: (H, W, 3) RGB in 0..255, uint8 or floating point; H and W at least 11.
        truth: the clean image, of the same shape and range.

    Raises:
        DataError: the shapes differ or are not (H, W, 3), or H or W is less than 11.
    """
    _check(image, truth)
    if min(image.shape[:2]) < WINDOW:
        raise DataError(
            f'SSIM needs images of at least {WINDOW}x{WINDOW} pixels, but got {_size(image)}. Use larger images, or '
            'omit the metric.'
        )
    x, y = np.rint(_luma(image) * 255), np.rint(_luma(truth) * 255)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variances = _window_mean(x * x) - mean_x**2 + _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return float(np.mean(luminance * np.maximum((2 * covariance + C2) / (variances + C2), 0)))


def _luma(image: np.ndarray) -> np.ndarray:
    """Computes (H, W) limited-range luma in [16/255, 235/255]."""
    return (image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 16) / 255


def _window_mean(plane: np.ndarray) -> np.ndarray:
    """Computes the Gaussian-weighted mean of each valid window: (H, W) -> (H - 10, W - 10)."""
    radius = WINDOW // 2
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * SIGMA**2))
    weights /= weights.sum()
    blurred = correlate1d(correlate1d(plane, weights, axis=0), weights, axis=1)
    return blurred[radius:-radius, radius:-radius]


def _check(image: np.ndarray, truth: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f'PSNR and SSIM need RGB images of shape (H, W, 3), but got {image.shape}. Convert the image.')
    if image.shape != truth.shape:
        raise DataError(
            f'The image has {_size(image)} pixels, but its clean image has {_size(truth)}. Both must have the same '
            'size. Restore at the size of the clean image, or resize one of them before scoring.'
        )


def _size(image: np.ndarray) -> str:
    return 'x'.join(str(side) for side in image.shape[:2]) + ('' if image.shape[2:] == (3,) else f' {image.shape[2:]}')
