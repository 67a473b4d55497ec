"""Blur kernels of the low-quality recipe: pure functions that compute a normalised kernel from explicit parameters.

The families are those of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, sec. 3.1 and 3.3): Gaussian, generalised
Gaussian, plateau and circular sinc. With `p` the offset of a pixel from the kernel centre, the first three depend on

    q(p) = p^T S^-1 p,    S = R(rotation) diag(sigma_x^2, sigma_y^2) R(rotation)^T

so they are isotropic for equal sigmas. Every function returns a (size, size) float64 array that sums to 1.
"""

import numpy as np
from scipy.special import j1

from rass_mm.errors import ConfigError


def _offsets(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the horizontal and vertical offsets from the centre of an odd-sized kernel.

    Raises:
        ConfigError: the size is even or not positive.
    """
    if size < 1 or size % 2 == 0:
        raise ConfigError(f'The blur kernel size is {size}, but it must be odd and positive.')
    axis = np.arange(size) - size // 2
    x, y = np.meshgrid(axis.astype(np.float64), axis.astype(np.float64))
    return x, y


def _quadratic_form(size: int, sigma_x: float, sigma_y: float, rotation: float) -> np.ndarray:
    """Computes q(p), as defined in the module docstring, at every pixel of a kernel."""
    x, y = _offsets(size)
    along = x * np.cos(rotation) + y * np.sin(rotation)
    across = y * np.cos(rotation) - x * np.sin(rotation)
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def generalized_gaussian(
    size: int, sigma_x: float, sigma_y: float, rotation: float = 0.0, beta: float = 1.0
) -> np.ndarray:
    """Computes a generalised Gaussian kernel, exp(-q^beta / 2).

    The density is the multivariate generalised Gaussian of Pascal et al. 2013 (Parameter Estimation For Multivariate
    Generalized Gaussian Distributions, IEEE Trans. Signal Processing 61(23)) up to a constant factor, which the
    normalisation removes.

    Args:
        size: Odd side of the kernel in pixels.
        sigma_x: Spread along the rotated horizontal axis, in pixels.
        sigma_y: Spread along the rotated vertical axis, in pixels.
        rotation: Angle of the axes in radians.
        beta: Shape. 1 is the normal distribution; smaller values are more peaked with heavier tails, larger values are
            flatter.

    Returns:
        A (size, size) float64 kernel that sums to 1.
    """
    kernel = np.exp(-0.5 * _quadratic_form(size, sigma_x, sigma_y, rotation) ** beta)
    return kernel / kernel.sum()


def gaussian(size: int, sigma_x: float, sigma_y: float, rotation: float = 0.0) -> np.ndarray:
    """Computes a Gaussian kernel, exp(-q / 2). See `generalized_gaussian` for the arguments."""
    return generalized_gaussian(size, sigma_x, sigma_y, rotation, beta=1.0)


def plateau(size: int, sigma_x: float, sigma_y: float, rotation: float = 0.0, beta: float = 1.0) -> np.ndarray:
    """Computes a plateau-shaped kernel, 1 / (1 + q^beta) (Real-ESRGAN, sec. 3.1).

    See `generalized_gaussian` for the arguments.
    """
    kernel = 1.0 / (1.0 + _quadratic_form(size, sigma_x, sigma_y, rotation) ** beta)
    return kernel / kernel.sum()


def sinc(size: int, omega: float) -> np.ndarray:
    """Computes a circular ideal low-pass kernel, omega J1(omega r) / (2 pi r) (Real-ESRGAN, sec. 3.3).

    It causes ringing and overshoot.

    Args:
        size: Odd side of the kernel in pixels.
        omega: Cut-off frequency in radians per pixel, at most pi.

    Returns:
        A (size, size) float64 kernel that sums to 1. Some values are negative.
    """
    radius = np.hypot(*_offsets(size))
    centre = radius == 0
    radius[centre] = 1.0  # any value except 0, because the centre is replaced by the limit below
    kernel = omega * j1(omega * radius) / (2 * np.pi * radius)
    kernel[centre] = omega**2 / (4 * np.pi)
    return kernel / kernel.sum()
