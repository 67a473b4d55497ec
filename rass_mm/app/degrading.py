"""Degradations of the page: the recipe at a severity, or single degradations of chosen amounts."""

import math
from dataclasses import dataclass

import numpy as np

from rass_mm.degradation.applying import apply
from rass_mm.degradation.recipe import OSEDIFF
from rass_mm.degradation.severity import MIXED, at_severity, with_amounts
from rass_mm.errors import ConfigError

NONE, RECIPE, AMOUNTS = 'none', 'recipe', 'amounts'
MODES = (NONE, RECIPE, AMOUNTS)
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Range:
    """Range of an amount.

    Attributes:
        title: name on the page.
        least: smallest value.
        most: largest value.
        neutral: value without effect.
        step: step of the slider.
    """

    title: str
    least: float
    most: float
    neutral: float
    step: float


FIRST = OSEDIFF.first
RANGES = {
    'blur': Range('Blur: sigma in pixels', 0, FIRST.sigma[1], 0, 0.1),
    'downscale': Range('Scale: reduced, then enlarged again', FIRST.resize_scale[0], 1, 1, 0.01),
    'gaussian': Range('Gaussian noise: sigma of 255', 0, FIRST.gaussian_sigma[1], 0, 0.5),
    'poisson': Range('Poisson noise: scale', 0, FIRST.poisson_scale[1], 0, 0.05),
    'jpeg': Range('JPEG quality (100: not compressed)', FIRST.jpeg_quality[0], 100, 100, 1),
}
"""Key of `rass_mm.degradation.severity.SINGLES` -> range, up to the strongest value of the recipe's first stage."""


@dataclass(frozen=True)
class Degradation:
    """Degradation of an image.

    Args:
        mode: 'none'; 'recipe' for the two stages of the recipe; or 'amounts' for single degradations.
        severity: for 'recipe', 0 (mildest) to 1 (the recipe itself).
        seed: random seed, which decides the kernels, the order and the noise.
        blur, downscale, gaussian, poisson, jpeg: amounts for 'amounts', see `RANGES`.

    Raises:
        ConfigError: a value is out of range.
    """

    mode: str = NONE
    severity: float = 1.0
    seed: int = 0
    blur: float = RANGES['blur'].neutral
    downscale: float = RANGES['downscale'].neutral
    gaussian: float = RANGES['gaussian'].neutral
    poisson: float = RANGES['poisson'].neutral
    jpeg: float = RANGES['jpeg'].neutral

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f'The degradation is {self.mode!r}, but it must be one of {", ".join(MODES)}.')
        _check('severity', self.severity, 0, 1)
        _check('seed', self.seed, 0, LARGEST_SEED)
        if self.seed != int(self.seed):
            raise ConfigError(f'seed is {self.seed}, but it must be an integer.')
        for name, allowed in RANGES.items():
            _check(name, getattr(self, name), allowed.least, allowed.most)

    def parameters(self, height: int, width: int) -> dict:
        """Returns the parameters for `rass_mm.degradation.applying.apply` and an image of this size."""
        if self.mode == RECIPE:
            return at_severity(MIXED, float(self.severity), height, width, int(self.seed))
        if self.mode == NONE:
            return with_amounts({}, height, width)
        given = {name: getattr(self, name) for name, allowed in RANGES.items()}
        amounts = {name: value for name, value in given.items() if value != RANGES[name].neutral}
        return with_amounts(amounts, height, width, int(self.seed))

    def of(self, image: np.ndarray) -> np.ndarray:
        """Returns a degraded copy of an image (H, W, 3) uint8 BGR."""
        return apply(image, self.parameters(*image.shape[:2]))


def _check(name: str, value: float, least: float, most: float) -> None:
    number = isinstance(value, int | float) and math.isfinite(value)
    if not (number and least <= value <= most):
        raise ConfigError(f'{name} is {value!r}, but it must be a number from {least:g} to {most:g}.')
