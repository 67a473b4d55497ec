"""Colour fixes: a restored image takes the colours of its source back.

Both work in bands of rows, so that an image of any size needs little memory besides itself.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from rass_mm.errors import ConfigError

COLOR_FIXES = ('none', 'adain', 'wavelet')
BAND = 128
EPSILON = 1e-5
"""Added to a variance of values in [0, 1], as released: a flat channel is not divided by 0."""
DILATIONS = (1, 2, 4, 8, 16)
REACH = sum(DILATIONS)
"""How many pixels away the low frequencies look; a band must not be lower."""


def fix_colors(restored: np.ndarray, source: np.ndarray, method: str) -> np.ndarray:
    """Gives a restored image the colours of its source.

    The formulas are those of the published restorers. Their scripts also truncate the restored image to 8 bits before
    and after the fix, where ours is rounded once when it is written: their pixels are half a grey level darker on
    average.

    Args:
        restored: (H, W, 3) float in [0, 1], changed in place.
        source: (H, W, 3) float in [0, 1].
        method: 'none'; 'adain', mean and standard deviation of each channel (arXiv 1703.06868); or 'wavelet', the low
            frequencies of the source and the high ones of the restored image (as in StableSR, arXiv 2305.07015).

    Returns:
        `restored`.

    Raises:
        ConfigError: there is no such method, or the images differ in size.
    """
    if method not in COLOR_FIXES:
        raise ConfigError(f'There is no colour fix {method!r}; choose one of {", ".join(COLOR_FIXES)}.')
    if restored.shape != source.shape:
        raise ConfigError(f'A colour fix needs images of one size, not {restored.shape} and {source.shape}.')
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
    """Mean and standard deviation of each channel: the unbiased variance, and `EPSILON` under the root.

    Two passes, because a difference of squares loses digits.
    """
    pixels = image.shape[0] * image.shape[1]
    bands = list(_bands(len(image)))
    mean = sum(image[top:bottom].sum((0, 1), dtype=np.float64) for top, bottom in bands) / pixels
    squares = sum(np.square(image[top:bottom] - mean).sum((0, 1)) for top, bottom in bands)
    return mean, np.sqrt(squares / max(pixels - 1, 1) + EPSILON)


def _exchange_low_frequencies(restored: np.ndarray, source: np.ndarray) -> None:
    """Adds the low frequencies of what the source has over the restored image: one blur, because it is linear."""
    height, pending = len(restored), None
    for top, bottom in _bands(height):
        first, last = max(top - REACH, 0), min(bottom + REACH, height)
        change = low_frequencies(source[first:last] - restored[first:last])[top - first : bottom - first]
        if pending:  # a band is changed only after the next one has looked at its last rows
            restored[pending[0]] += pending[1]
        pending = slice(top, bottom), change
    restored[pending[0]] += pending[1]


def low_frequencies(image: np.ndarray) -> np.ndarray:
    """What five levels of a [1 2 1] / 4 blur leave, each twice as wide as the one before; edges are repeated."""
    for dilation in DILATIONS:
        kernel = np.zeros(2 * dilation + 1)
        kernel[[0, dilation, 2 * dilation]] = 0.25, 0.5, 0.25
        image = cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    return image
