"""Application of drawn degradation parameters to an image: blur, resize, noise and JPEG."""

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from rass_mm.degradation import jpeg, kernels
from rass_mm.errors import DataError

INTERPOLATIONS = {'area': cv2.INTER_AREA, 'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}
LEVELS = np.arange(256) / 255
"""Values of the grey levels in [0, 1]."""


def apply(image: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Degrades an image with drawn parameters. The same arguments always produce the same result.

    Args:
        image: (H, W, 3) uint8, BGR.
        parameters: The result of `draw` or `single` for this height and width. It may have been stored as JSON.

    Returns:
        A new (H, W, 3) uint8 BGR image.

    Raises:
        DataError: the type or the shape of the image does not match the parameters.
    """
    size = (parameters['height'], parameters['width'])
    if image.dtype != np.uint8 or image.shape != (*size, 3):
        raise DataError(
            f'The degradation was drawn for a uint8 BGR image of shape {(*size, 3)}, but the image is {image.dtype} of '
            f'shape {image.shape}. Draw parameters for this image, or load the image that they were drawn for.'
        )
    degraded = image.astype(np.float32) / 255
    for step in parameters['steps']:
        degraded = OPERATIONS[step['op']](degraded, step)
    return _to_uint8(degraded)


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def build_kernel(step: Mapping[str, Any]) -> np.ndarray:
    """Computes the kernel of a drawn blur step."""
    if step['kernel'] == 'sinc':
        return kernels.sinc(step['size'], step['omega'])
    shape = (step['size'], step['sigma_x'], step['sigma_y'], step['rotation'])
    if step['kernel'] in ('iso', 'aniso'):
        return kernels.gaussian(*shape)
    family = kernels.generalized_gaussian if step['kernel'].startswith('generalized') else kernels.plateau
    return family(*shape, step['beta'])


def _blur(image: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    return cv2.filter2D(image, -1, build_kernel(step), borderType=cv2.BORDER_REFLECT_101)


def _resize(image: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    return cv2.resize(image, (step['width'], step['height']), interpolation=INTERPOLATIONS[step['interpolation']])


def _jpeg(image: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    decoded = jpeg.compress(_to_uint8(image), step['quality'], step.get('chroma', 'smooth'))
    return decoded.astype(np.float32) / 255


def _noise(image: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    rng = np.random.default_rng(step['seed'])
    if step['kind'] == 'gaussian':
        shape = (*image.shape[:2], 1 if step['grey'] else 3)
        noise = rng.standard_normal(shape, dtype=np.float32)
        noise *= np.float32(step['sigma'] / 255)
    else:
        source = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None] if step['grey'] else image  # BT.601 luma
        noise = poisson_noise(source, rng)
        noise *= step['scale']
        noise = noise.astype(np.float32)
    noisy = image + noise
    return np.clip(noisy, 0, 1, out=noisy)


def poisson_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws the zero-mean shot noise of Real-ESRGAN: Poisson(x v) / v - x for a pixel value x, with variance x / v.

    The expected count v at x = 1 is the number of distinct grey levels in the image, rounded up to a power of two.

    Args:
        image: Array of any shape in [0, 1].
        rng: Source of the noise.

    Returns:
        Float64 noise in the shape of the image.
    """
    levels = _to_uint8(image).reshape(-1)
    different = np.count_nonzero(cv2.calcHist([levels], [0], None, [256], [0, 256]))
    counts = 2 ** math.ceil(math.log2(different))
    x = cv2.LUT(levels, LEVELS).reshape(image.shape)
    noise = rng.poisson(x * counts) / counts
    noise -= x
    return noise


OPERATIONS = {'blur': _blur, 'resize': _resize, 'noise': _noise, 'jpeg': _jpeg}
"""Functions that apply a drawn step to a float32 image in [0, 1], by the value of `op`."""
