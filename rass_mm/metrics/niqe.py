"""NIQE (Mittal et al. 2013): how far an image's statistics lie from those of pristine photographs; no clean image."""

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
"""(E|x|)^2 / E[x^2] of a generalised Gaussian with each of `ALPHAS` as its shape."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe(image: np.ndarray) -> float:
    """Natural image quality evaluator on rounded full-range luma; lower is better.

    The image is cut into 96-px blocks; rows and columns beyond the last whole block do not count. NaN where fewer than
    two blocks have texture on both sides of their mean (an image below 96x192, or a flat one): the covariance of the
    blocks is undefined there, and no number would be comparable.

    Args:
        image: (H, W, 3) RGB in 0..255, uint8 or floating point; H and W at least 96.

    Raises:
        DataError: the image is not (H, W, 3) or is smaller than one block.
        InstallationError: mmagic, which carries the statistics of the pristine photographs, is absent.
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f'NIQE needs an RGB image of shape (H, W, 3), but got {image.shape}.')
    if min(image.shape[:2]) < BLOCK:
        height, width = image.shape[:2]
        raise DataError(f'NIQE needs an image of at least {BLOCK}x{BLOCK} pixels, but got {height}x{width}.')
    pristine_mean, pristine_covariance = pristine_statistics()
    features = _block_features(_rounded_luma(image))
    usable = features[~np.isnan(features).any(axis=1)]
    if len(usable) < 2:
        return float('nan')
    # The reference takes the mean over every finite entry, but the covariance over whole rows only.
    offset = pristine_mean - np.nanmean(features, axis=0)
    spread = (pristine_covariance + np.cov(usable, rowvar=False)) / 2
    return float(np.sqrt(offset @ np.linalg.pinv(spread) @ offset))


@functools.lru_cache(maxsize=1)
def pristine_statistics() -> tuple[np.ndarray, np.ndarray]:
    """Mean (36,) and covariance (36, 36) of the features of pristine photographs, from the installed mmagic.

    The file is read without importing mmagic: only its folder is looked up.

    Raises:
        InstallationError: mmagic or the file in it is absent.
    """
    spec = importlib.util.find_spec('mmagic')
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [Path(folder) / 'evaluation' / 'metrics' / 'niqe_pris_params.npz' for folder in folders]
    for file in filter(Path.is_file, files):
        with np.load(file) as statistics:
            return statistics['mu_pris_param'].ravel(), statistics['cov_pris_param']
    where = f'no {files[0]}' if files else 'no package mmagic'
    raise InstallationError(
        f'NIQE needs the statistics of pristine photographs that mmagic carries, but there is {where}. '
        'Install it with: pip install "rass_mm[restoration]"'
    )


def _rounded_luma(image: np.ndarray) -> np.ndarray:
    """(H, W) full-range luma, rounded half up; integer weights keep the halves of uint8 images exact."""
    return np.floor(image.astype(np.float64) @ np.array([299.0, 587.0, 114.0]) / 1000 + 0.5)


def _block_features(luma: np.ndarray) -> np.ndarray:
    """(blocks, 36): 18 features of each block at full and at half size."""
    rows, columns = luma.shape[0] // BLOCK, luma.shape[1] // BLOCK
    plane, scales = luma[: rows * BLOCK, : columns * BLOCK], []
    for side in (BLOCK, BLOCK // 2):
        blocks = _normalised(plane).reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
        with np.errstate(divide='ignore', invalid='ignore'):  # flat blocks become NaN on purpose
            scales.append(_features(blocks))
        plane = _half_size(plane)
    return np.concatenate(scales, axis=1)


def _normalised(plane: np.ndarray) -> np.ndarray:
    """Mean-subtracted, contrast-normalised coefficients (equation 1 of the paper)."""
    mean = _blurred(plane)
    deviation = np.sqrt(np.abs(_blurred(plane**2) - mean**2))
    difference = plane - mean
    difference[np.abs(difference) < 1e-9] = 0  # flat areas are exactly flat: rounding errors have no statistics
    return difference / (deviation + 1)


def _blurred(plane: np.ndarray) -> np.ndarray:
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    weights /= weights.sum()
    return correlate1d(correlate1d(plane, weights, axis=0, mode='nearest'), weights, axis=1, mode='nearest')


def _half_size(plane: np.ndarray) -> np.ndarray:
    """MATLAB's antialiased bicubic resize by 1/2, of sides that are even: eight taps about each pair of pixels."""
    distance = np.abs(np.arange(-3.5, 4)) / 2
    inner, outer = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = np.where(distance <= 1, inner, outer)
    taps /= taps.sum()
    for _ in range(2):  # each pass halves the rows and swaps the axes
        padded = np.pad(plane, ((3, 3), (0, 0)), mode='symmetric')
        plane = sum(tap * padded[i : i + len(plane) - 1 : 2] for i, tap in enumerate(taps)).T
    return plane


def _features(blocks: np.ndarray) -> np.ndarray:
    """(N, 18): the fits of the blocks themselves and of the products of neighbours in four directions."""
    alpha, left, right = _asymmetric_fit(blocks)
    columns = [alpha, (left + right) / 2]
    for shift in NEIGHBOURS:
        alpha, left, right = _asymmetric_fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * np.exp(gammaln(2 / alpha) - gammaln(1 / alpha))
        columns += [alpha, mean, left, right]
    return np.stack(columns, axis=1)


def _asymmetric_fit(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape, left scale and right scale, each (N,), of asymmetric generalised Gaussians fitted to (N, h, w) values."""
    values = values.reshape(len(values), -1)
    squares = values**2
    left = np.sqrt(np.sum(squares * (values < 0), axis=1) / np.sum(values < 0, axis=1))
    right = np.sqrt(np.sum(squares * (values > 0), axis=1) / np.sum(values > 0, axis=1))
    skew = left / right
    ratio = np.abs(values).mean(axis=1) ** 2 / squares.mean(axis=1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    # argmin takes the first entry for NaN: a flat block keeps shape 0.2, as in the reference.
    alpha = ALPHAS[np.abs(RATIOS - ratio[:, None]).argmin(axis=1)]
    scale = np.exp((gammaln(1 / alpha) - gammaln(3 / alpha)) / 2)
    return alpha, left * scale, right * scale
