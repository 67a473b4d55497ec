"""Colour fixes, which transfer the colours of a source image to its restored image.

The images are processed in bands of rows, so that little additional memory is needed for images of any size.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from rass_mm.errors import ConfigError

COLOR_FIXES = ('none', 'adain', 'wavelet')
BAND = 128
EPSILON = 1e-5
"""Added to the variance of each channel, as in the released code, to avoid a division by 0 for a constant channel."""
DILATIONS = (1, 2, 4, 8, 16)
REACH = sum(DILATIONS)
"""Radius of the low-pass filter in pixels. A band must have at least this height."""


def fix_colors(restored: np.ndarray, source: np.ndarray, method: str) -> np.ndarray:
    """Transfers the colours of the source to a restored image.

    The formulas are those of the published restorers. The published scripts also truncate the restored image to 8 bits
    before and after the fix, so their pixels are half a grey level darker on average. Here, the image is rounded only
    once, when it is written.

    Args:
        restored: (H, W, 3) float in [0, 1], modified in place.
        source: (H, W, 3) float in [0, 1].
        method: 'none', 'adain' (matches the mean and standard deviation of each channel, arXiv 1703.06868) or 'wavelet'
            (combines the low frequencies of the source with the high frequencies of the restored image, as in StableSR,
            arXiv 2305.07015).

    Returns:
        The array `restored`.

    Raises:
        ConfigError: the method is unknown, or the images differ in size.
    """
    if method not in COLOR_FIXES:
        raise ConfigError(f'There is no colour fix {method!r}. Choose one of {", ".join(COLOR_FIXES)}.')
    if restored.shape != source.shape:
        raise ConfigError(
            f'A colour fix needs images of the same size, but the restored image has shape {restored.shape} and the '
            f'source has shape {source.shape}. Resize the source to the size of the restored image.'
        )
    if method == 'adain':
        _match_statistics(restored, source)
    elif method == 'wavelet':
        _exchange_low_frequencies(restored, source)
    return restored


def _bands(height: int) -> Iterator[tuple[int, int]]:
    return ((top, min(top + BAND, height)) for top in range(0, height, BAND))


def _match_statistics(restored: np.ndarray, source: np.ndarray) -> None:
    (mean, deviation), (wanted_mean, wanted_deviation) = _statistics(restored), _statistics(source)
    gain = wanted_deviation / deviation
    for top, bottom in _bands(len(restored)):
        restored[top:bottom] = (restored[top:bottom] - mean) * gain + wanted_mean


def _statistics(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the mean and the standard deviation of each channel.

    The standard deviation is the square root of the unbiased variance plus `EPSILON`. The variance is computed in a
    second pass, because the difference of mean square and squared mean is less precise.
    """
    pixels = image.shape[0] * image.shape[1]
    bands = list(_bands(len(image)))
    mean = sum(image[top:bottom].sum((0, 1), dtype=np.float64) for top, bottom in bands) / pixels
    squares = sum(np.square(image[top:bottom] - mean).sum((0, 1)) for top, bottom in bands)
    return mean, np.sqrt(squares / max(pixels - 1, 1) + EPSILON)


def _exchange_low_frequencies(restored: np.ndarray, source: np.ndarray) -> None:
    """Adds the low frequencies of `source - restored` to `restored`.

    Only the difference needs to be blurred, because the blur is linear.
    """
    height, pending = len(restored), None
    for top, bottom in _bands(height):
        first, last = max(top - REACH, 0), min(bottom + REACH, height)
        change = low_frequencies(source[first:last] - restored[first:last])[top - first : bottom - first]
        if pending:  # a band is modified only after the next band has read its last rows
            restored[pending[0]] += pending[1]
        pending = slice(top, bottom), change
    restored[pending[0]] += pending[1]


def low_frequencies(image: np.ndarray) -> np.ndarray:
    """Blurs a float image of shape (H, W, 3) or (H, W).

    A [1 2 1] / 4 filter is applied five times in both directions. Its dilation is doubled each time. Beyond the border,
    the image is continued with its border pixels.
    """
    for dilation in DILATIONS:
        kernel = np.zeros(2 * dilation + 1)
        kernel[[0, dilation, 2 * dilation]] = 0.25, 0.5, 0.25
        image = cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    return image
