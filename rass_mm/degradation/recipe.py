"""Settings of the two-stage low-quality recipe.

The recipe is that of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, sec. 3) with the values of OSEDiff. Drawing and
applying are separate. `rass_mm.degradation.drawing.draw` returns parameters that can be stored as JSON, and
`rass_mm.degradation.applying.apply` is a pure function of the image and the parameters. The manifest of a degraded data
set contains the parameters of each image, so that the image can be reproduced exactly.

mmagic 1.2.0 has transforms for the same degradations. They are not used for the following reasons:

* Poisson noise is computed on 0..255 values, which makes it sqrt(255) times weaker than Real-ESRGAN's on 0..1 values.
* `DegradationsWithShuffle` keeps the shuffled order for the next image, so the seed of an image does not determine the
  result.
* `RandomBlur` draws one beta from the configured range and passes it to Real-ESRGAN's rule as both ends of the range.
  The rule then draws a value between 1 and this beta. For a generalised Gaussian, the result is below 1 in 1/7 of the
  draws instead of 1/2.
* The drawn parameters are not recorded.

The recipe was compared with the released pipeline, with 900 degraded images from each. The kernels agreed to 4e-15, and
the noise parameters, the probabilities and the order of the steps had the same distributions. There are two
differences:

* The released pipeline draws the interpolation of the last resize (back to the input size) from area, bilinear and
  bicubic. Version 1 of the recipe always uses bilinear, which makes the SSIM 0.015 higher and the image gradients 8 %
  weaker than in the released pipeline. Version 2 draws the interpolation as the released pipeline does. Version 1 is
  kept to reproduce data sets that were degraded with it.
* The released JPEG simulation enlarges the halved chroma planes by repeating pixels, whereas libjpeg interpolates. The
  log variance of chroma edges is 2.6 with repetition and 1.8 with libjpeg. The default is the behaviour of libjpeg,
  because real files are decoded that way. Set `jpeg_chroma='repeat'` to get the released behaviour.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from rass_mm.degradation import jpeg
from rass_mm.errors import ConfigError

KERNELS = ('iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso')
RESIZES = ('up', 'down', 'keep')
VERSIONS = (1, 2)

Settings = TypeVar('Settings')


@dataclass(frozen=True)
class Stage:
    """Ranges and probabilities of one of the two stages. Ranges are (low, high), with both ends included.

    Args:
        sigma: Spread of the blur kernels in pixels.
        resize_probs: Probabilities of enlarging, of reducing and of keeping the size.
        resize_scale: Smallest and largest size, as a multiple of the input size.
        gaussian_sigma: Standard deviation of the Gaussian noise, on a scale of 0 to 255.
        poisson_scale: Scale factor of the Poisson noise.
        blur_prob: Probability that the stage blurs the image.
        sinc_prob: Probability that a blur uses the sinc filter instead of one of `KERNELS`.
        kernel_probs: Probabilities of `KERNELS`, in that order.
        kernel_sizes: Odd kernel sizes, drawn uniformly.
        beta_gaussian: Shape of the generalised Gaussian kernels.
        beta_plateau: Shape of the plateau kernels.
        gaussian_prob: Probability of Gaussian noise. Otherwise, the noise is Poisson noise.
        grey_prob: Probability that the noise is the same in all three channels.
        jpeg_quality: JPEG quality, drawn as an integer.
    """

    sigma: tuple[float, float]
    resize_probs: tuple[float, float, float]
    resize_scale: tuple[float, float]
    gaussian_sigma: tuple[float, float]
    poisson_scale: tuple[float, float]
    blur_prob: float = 1.0
    sinc_prob: float = 0.1
    kernel_probs: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    kernel_sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    beta_gaussian: tuple[float, float] = (0.5, 4.0)
    beta_plateau: tuple[float, float] = (1.0, 2.0)
    gaussian_prob: float = 0.5
    grey_prob: float = 0.4
    jpeg_quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        """Checks the values, so that an error is raised before the first image instead of in the middle of a run."""
        for name in ('sigma', 'resize_scale', 'gaussian_sigma', 'poisson_scale'):
            low, high = getattr(self, name)
            _require(0 <= low <= high, name, getattr(self, name), 'a range (low, high) with 0 <= low <= high')
        _require(self.sigma[0] > 0, 'sigma', self.sigma, 'two numbers above 0')
        for name in ('resize_scale', 'beta_gaussian', 'beta_plateau'):
            low, high = getattr(self, name)
            _require(0 < low <= 1 <= high, name, getattr(self, name), 'a range (low, high) with 0 < low <= 1 <= high')
        for name, kinds in (('resize_probs', RESIZES), ('kernel_probs', KERNELS)):
            probs = getattr(self, name)
            valid = len(probs) == len(kinds) and min(probs) >= 0 and math.isclose(sum(probs), 1, abs_tol=1e-6)
            _require(valid, name, probs, f'probabilities of {", ".join(kinds)} that sum to 1')
        for name in ('blur_prob', 'sinc_prob', 'gaussian_prob', 'grey_prob'):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), 'a probability from 0 to 1')
        odd = bool(self.kernel_sizes) and all(size > 0 and size % 2 for size in self.kernel_sizes)
        _require(odd, 'kernel_sizes', self.kernel_sizes, 'a non-empty list of odd sizes')
        low, high = self.jpeg_quality
        _require(
            1 <= low <= high <= 100,
            'jpeg_quality',
            self.jpeg_quality,
            'a range (low, high) with 1 <= low <= high <= 100',
        )


@dataclass(frozen=True)
class Recipe:
    """Settings of the two stages and the final steps, and the version of the rules.

    Args:
        first: The first stage.
        second: The second stage.
        final_sinc_prob: Probability of the final sinc filter.
        version: One of `VERSIONS`. Version 1 resizes back to the input size bilinearly; version 2 uses one of
            `INTERPOLATIONS` (`rass_mm.degradation.applying`), drawn uniformly. All other draws are the same in both
            versions.
        jpeg_chroma: Enlargement of the halved chroma planes of JPEG: 'smooth', as in libjpeg, or 'repeat', as in the
            released pipeline.
    """

    first: Stage
    second: Stage
    final_sinc_prob: float = 0.8
    version: int = 2
    jpeg_chroma: str = 'smooth'

    def __post_init__(self) -> None:
        """Checks the values."""
        _require(0 <= self.final_sinc_prob <= 1, 'final_sinc_prob', self.final_sinc_prob, 'a probability from 0 to 1')
        _require(self.version in VERSIONS, 'version', self.version, f'one of {", ".join(map(str, VERSIONS))}')
        _require(self.jpeg_chroma in jpeg.CHROMA, 'jpeg_chroma', self.jpeg_chroma, f'one of {", ".join(jpeg.CHROMA)}')


def _require(valid: bool, name: str, value: Any, needed: str) -> None:
    if not valid:
        raise ConfigError(f'Degradation recipe: {name} is {value}, but it must be {needed}.')


OSEDIFF = Recipe(
    first=Stage(
        sigma=(0.2, 3.0),
        resize_probs=(0.2, 0.7, 0.1),
        resize_scale=(0.15, 1.5),
        gaussian_sigma=(1.0, 30.0),
        poisson_scale=(0.05, 3.0),
    ),
    second=Stage(
        blur_prob=0.8,
        sigma=(0.2, 1.5),
        resize_probs=(0.3, 0.4, 0.3),
        resize_scale=(0.3, 1.2),
        gaussian_sigma=(1.0, 25.0),
        poisson_scale=(0.05, 2.5),
    ),
)


def override(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Returns a copy of a recipe or stage with some values changed, e.g. `{'first': {'jpeg_quality': (50, 95)}}`.

    Raises:
        ConfigError: a setting is unknown, or its new value is not valid.
    """
    known = [field.name for field in fields(settings)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ConfigError(f'Degradation recipe: unknown setting {", ".join(unknown)}. Choose from {", ".join(known)}.')
    values = {}
    for name, value in changes.items():
        old = getattr(settings, name)
        nested = override(old, value) if is_dataclass(old) else value
        values[name] = tuple(nested) if isinstance(nested, list) else nested  # configs and JSON contain only lists
    return replace(settings, **values)
