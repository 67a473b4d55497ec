"""NIQE (Mittal et al. 2013): distance between the statistics of an image and those of pristine photographs.

NIQE is a no-reference metric, so it needs no clean image.
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np
from scipy.ndimage import correlate1d
from scipy.special import gammaln

from rass_mm.errors import DataError, InstallationError

BLOCK = 96
ALPHAS = np.arange(0.2, 10.001, 0.001)
RATIOS = np.exp(2 * gammaln(2 / ALPHAS) - gammaln(1 / ALPHAS) - gammaln(3 / ALPHAS))
"""(E|x|)^2 / E[x^2] of a generalised Gaussian for each shape parameter in `ALPHAS`."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe(image: np.ndarray) -> float:
    """Computes the score of the natural image quality evaluator (NIQE) on rounded full-range luma. Lower is better.

    The image is divided into blocks of 96x96 pixels. Rows and columns beyond the last complete block are ignored. A
    block without texture has no features. If fewer than two blocks have features (for example in a flat image or in an
    image with only one block), the result is NaN, because their covariance is undefined.

    Args:
        image: (H, W, 3) RGB in 0..255, uint8 or floating point; H and W at least 96.

    Raises:
        DataError: the image is not (H, W, 3) or is smaller than one block.
        InstallationError: mmagic, which contains the statistics of the pristine photographs, is not installed.
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f'NIQE needs an RGB image of shape (H, W, 3), but got {image.shape}. Convert it to RGB.')
    if min(image.shape[:2]) < BLOCK:
        height, width = image.shape[:2]
        raise DataError(
            f'NIQE needs an image of at least {BLOCK}x{BLOCK} pixels, but got {height}x{width}. Use a larger image, or '
            'omit the metric.'
        )
    pristine_mean, pristine_covariance = pristine_statistics()
    features = _block_features(_rounded_luma(image))
    usable = features[~np.isnan(features).any(axis=1)]
    if len(usable) < 2:
        return float('nan')
    # The reference computes the mean over every finite entry, but the covariance over complete rows only.
    offset = pristine_mean - np.nanmean(features, axis=0)
    spread = (pristine_covariance + np.cov(usable, rowvar=False)) / 2
    return float(np.sqrt(offset @ np.linalg.pinv(spread) @ offset))


@functools.lru_cache(maxsize=1)
def pristine_statistics() -> tuple[np.ndarray, np.ndarray]:
    """Loads the mean (36,) and covariance (36, 36) of the features of pristine photographs from the installed mmagic.

    The function does not import mmagic; it only looks up the folder of the package.

    Raises:
        InstallationError: mmagic is not installed or does not contain the file.
    """
    spec = importlib.util.find_spec('mmagic')
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [Path(folder) / 'evaluation' / 'metrics' / 'niqe_pris_params.npz' for folder in folders]
    for file in filter(Path.is_file, files):
        with np.load(file) as statistics:
            return statistics['mu_pris_param'].ravel(), statistics['cov_pris_param']
    where = f'{files[0]} does not exist' if files else 'mmagic is not installed'
    raise InstallationError(
        f'NIQE needs the statistics of pristine photographs that mmagic contains, but {where}. '
        'Install it with: pip install "rass_mm[restoration]"'
    )


def _rounded_luma(image: np.ndarray) -> np.ndarray:
    """Computes (H, W) full-range luma in 0..255, with halves rounded up.

    The weights are integers, so that halves are exact for uint8 images.
    """
    return np.floor(image.astype(np.float64) @ np.array([299.0, 587.0, 114.0]) / 1000 + 0.5)


def _block_features(luma: np.ndarray) -> np.ndarray:
    """Computes (blocks, 36) values: 18 features of each block at full size and 18 at half size."""
    rows, columns = luma.shape[0] // BLOCK, luma.shape[1] // BLOCK
    plane, scales = luma[: rows * BLOCK, : columns * BLOCK], []
    for side in (BLOCK, BLOCK // 2):
        blocks = _normalised(plane).reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
        with np.errstate(divide='ignore', invalid='ignore'):  # flat blocks become NaN intentionally
            scales.append(_features(blocks))
        plane = _half_size(plane)
    return np.concatenate(scales, axis=1)


def _normalised(plane: np.ndarray) -> np.ndarray:
    """Computes the mean-subtracted, contrast-normalised coefficients (equation 1 of the NIQE paper)."""
    mean = _blurred(plane)
    deviation = np.sqrt(np.abs(_blurred(plane**2) - mean**2))
    difference = plane - mean
    difference[np.abs(difference) < 1e-9] = 0  # flat areas must be exactly flat, without rounding errors
    return difference / (deviation + 1)


def _blurred(plane: np.ndarray) -> np.ndarray:
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    weights /= weights.sum()
    return correlate1d(correlate1d(plane, weights, axis=0, mode='nearest'), weights, axis=1, mode='nearest')


def _half_size(plane: np.ndarray) -> np.ndarray:
    """Resizes (H, W) with even sides to half the size like MATLAB's antialiased bicubic `imresize` (eight taps)."""
    distance = np.abs(np.arange(-3.5, 4)) / 2
    inner, outer = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = np.where(distance <= 1, inner, outer)
    taps /= taps.sum()
    for _ in range(2):  # each pass halves the rows and swaps the axes
        padded = np.pad(plane, ((3, 3), (0, 0)), mode='symmetric')
        plane = sum(tap * padded[i : i + len(plane) - 1 : 2] for i, tap in enumerate(taps)).T
    return plane


def _features(blocks: np.ndarray) -> np.ndarray:
    """Computes (N, 18) features: parameters of distributions fitted to each of (N, h, w) blocks.

    The distributions are fitted to the values of a block and to the products of values that are neighbours in each of
    four directions.
    """
    alpha, left, right = _asymmetric_fit(blocks)
    columns = [alpha, (left + right) / 2]
    for shift in NEIGHBOURS:
        alpha, left, right = _asymmetric_fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * np.exp(gammaln(2 / alpha) - gammaln(1 / alpha))
        columns += [alpha, mean, left, right]
    return np.stack(columns, axis=1)


def _asymmetric_fit(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits an asymmetric generalised Gaussian to each block of (N, h, w) values.

    Returns:
        The shape parameters, the left scales and the right scales, each (N,).
    """
    values = values.reshape(len(values), -1)
    squares = values**2
    left = np.sqrt(np.sum(squares * (values < 0), axis=1) / np.sum(values < 0, axis=1))
    right = np.sqrt(np.sum(squares * (values > 0), axis=1) / np.sum(values > 0, axis=1))
    skew = left / right
    ratio = np.abs(values).mean(axis=1) ** 2 / squares.mean(axis=1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    # argmin returns the first entry for NaN, so a flat block has shape 0.2, as in the reference.
    alpha = ALPHAS[np.abs(RATIOS - ratio[:, None]).argmin(axis=1)]
    scale = np.exp((gammaln(1 / alpha) - gammaln(3 / alpha)) / 2)
    return alpha, left * scale, right * scale
