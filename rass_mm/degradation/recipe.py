"""Two-stage low-quality recipe: drawing of degradation parameters, and their application to an image.

The recipe is that of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, sec. 3) with the values of OSEDiff. Drawing and
applying are separate. `draw` returns parameters that can be stored as JSON, and `apply` is a pure function of the image
and the parameters. The manifest of a degraded data set contains the parameters of each image, so that the image can be
reproduced exactly.

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

import cv2
import numpy as np

from rass_mm.degradation import jpeg, kernels
from rass_mm.errors import ConfigError, DataError

KERNELS = ('iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso')
RESIZES = ('up', 'down', 'keep')
INTERPOLATIONS = {'area': cv2.INTER_AREA, 'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}
SINGLES = ('blur', 'downscale', 'gaussian', 'poisson', 'jpeg')
VERSIONS = (1, 2)
LEVELS = np.arange(256) / 255
"""Values of the grey levels in [0, 1]."""

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
            `INTERPOLATIONS`, drawn uniformly. All other draws are the same in both versions.
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


def draw(recipe: Recipe, rng: np.random.Generator, height: int, width: int) -> dict:
    """Draws all parameters of one image.

    Args:
        recipe: The recipe to draw from, e.g. `OSEDIFF`.
        rng: The only source of randomness.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        A JSON-serialisable dict with `height`, `width` and `steps`, a list of dicts in the order in which `apply` runs
        them. Each step has `op` (blur, resize, noise or jpeg), `stage` (1, 2 or final) and its parameters.
    """
    steps = []
    for number, stage in ((1, recipe.first), (2, recipe.second)):
        drawn = [_draw_blur(stage, rng)] if rng.random() < stage.blur_prob else []
        # As in Real-ESRGAN, both resizes are relative to the input size; the second one is not relative to the result
        # of the first. At final scale 1, the worst case is the smaller of the two scales and not their product.
        drawn += [_draw_resize(stage, rng, height, width), _draw_noise(stage, rng)]
        if number == 1:
            drawn.append(_draw_jpeg(stage, rng, recipe.jpeg_chroma))
        steps += [{**step, 'stage': number} for step in drawn]
    steps += [{**step, 'stage': 'final'} for step in _draw_final(recipe, rng, height, width)]
    return {'height': int(height), 'width': int(width), 'steps': steps}


def _draw_final(recipe: Recipe, rng: np.random.Generator, height: int, width: int) -> list[dict]:
    """Draws the second JPEG and, before or after it, the resize back to the input size with the final sinc filter.

    Resize and sinc stay together, as in Real-ESRGAN. Its authors report twisted lines for the order sinc, JPEG, resize.
    """
    sinc = []
    if rng.random() < recipe.final_sinc_prob:
        size = int(rng.choice(recipe.second.kernel_sizes))
        sinc = [{'op': 'blur', 'kernel': 'sinc', 'size': size, 'omega': float(rng.uniform(np.pi / 3, np.pi))}]
    jpegs = [_draw_jpeg(recipe.second, rng, recipe.jpeg_chroma)]
    jpeg_first = rng.random() < 0.5
    # Drawn last, so that the other parameters of an image do not depend on the version.
    interpolation = 'bilinear' if recipe.version == 1 else str(rng.choice(list(INTERPOLATIONS)))
    back = [resize_step('back', 1.0, interpolation, height, width), *sinc]
    return jpegs + back if jpeg_first else back + jpegs


def _draw_blur(stage: Stage, rng: np.random.Generator) -> dict:
    size = int(rng.choice(stage.kernel_sizes))
    if rng.random() < stage.sinc_prob:
        # A low cut-off needs a kernel that is wide enough for its ripples (Real-ESRGAN's rule).
        lowest = np.pi / 3 if size < 13 else np.pi / 5
        return {'op': 'blur', 'kernel': 'sinc', 'size': size, 'omega': float(rng.uniform(lowest, np.pi))}
    kind = str(rng.choice(KERNELS, p=stage.kernel_probs))
    sigma_x = sigma_y = float(rng.uniform(*stage.sigma))
    rotation = 0.0
    if kind.endswith('aniso'):
        sigma_y = float(rng.uniform(*stage.sigma))
        rotation = float(rng.uniform(-np.pi, np.pi))
    step = {'op': 'blur', 'kernel': kind, 'size': size, 'sigma_x': sigma_x, 'sigma_y': sigma_y, 'rotation': rotation}
    if kind in ('iso', 'aniso'):
        return step
    low, high = stage.beta_gaussian if kind.startswith('generalized') else stage.beta_plateau
    # Real-ESRGAN's rule: peaked and flat shapes are equally likely, regardless of the extent of the range on each side.
    return {**step, 'beta': float(rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high))}


def _draw_resize(stage: Stage, rng: np.random.Generator, height: int, width: int) -> dict:
    mode = str(rng.choice(RESIZES, p=stage.resize_probs))
    low, high = {'up': (1.0, stage.resize_scale[1]), 'down': (stage.resize_scale[0], 1.0), 'keep': (1.0, 1.0)}[mode]
    scale = float(rng.uniform(low, high))
    return resize_step(mode, scale, str(rng.choice(list(INTERPOLATIONS))), height, width)


def resize_step(mode: str, scale: float, interpolation: str, height: int, width: int) -> dict:
    """Returns a resize step in the format of `draw`. The target size is rounded down, but is at least 1 pixel.

    Args:
        mode: 'up', 'down', 'keep' or 'back', for the record only.
        scale: Target size as a multiple of the input size.
        interpolation: A key of `INTERPOLATIONS`.
        height: Height of the input image in pixels.
        width: Width of the input image in pixels.
    """
    size = {'height': max(1, int(height * scale)), 'width': max(1, int(width * scale))}
    return {'op': 'resize', 'mode': mode, 'scale': scale, 'interpolation': interpolation, **size}


def _draw_noise(stage: Stage, rng: np.random.Generator) -> dict:
    if rng.random() < stage.gaussian_prob:
        amount = {'kind': 'gaussian', 'sigma': float(rng.uniform(*stage.gaussian_sigma))}
    else:
        amount = {'kind': 'poisson', 'scale': float(rng.uniform(*stage.poisson_scale))}
    grey = bool(rng.random() < stage.grey_prob)
    return {'op': 'noise', **amount, 'grey': grey, 'seed': int(rng.integers(2**32))}


def _draw_jpeg(stage: Stage, rng: np.random.Generator, chroma: str) -> dict:
    low, high = stage.jpeg_quality
    step = {'op': 'jpeg', 'quality': int(rng.integers(low, high + 1))}
    # Omitted if smooth, as in all manifests written before the setting was introduced.
    return step if chroma == 'smooth' else {**step, 'chroma': chroma}


def single(kind: str, severity: float, height: int, width: int, seed: int = 0) -> dict:
    """Returns the parameters of a single degradation, for robustness curves.

    Args:
        kind: One of `SINGLES`.
        severity: 0 is the mildest value that `OSEDIFF.first` can draw and 1 the strongest, with linear interpolation in
            between.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        seed: Seed of the noise.

    Returns:
        A dict for `apply` that contains the steps of this degradation only.

    Raises:
        ConfigError: `kind` or `severity` is not valid.
    """
    if kind not in SINGLES or not 0 <= severity <= 1:
        raise ConfigError(
            f'There is no degradation {kind!r} of severity {severity}. Choose one of {SINGLES} '
            'and a severity in the range 0 to 1.'
        )
    stage = OSEDIFF.first

    def between(mild: float, hard: float) -> float:
        return mild + severity * (hard - mild)

    sigma, noise = between(*stage.sigma), {'op': 'noise', 'grey': False, 'seed': seed}
    small = resize_step('down', between(1.0, stage.resize_scale[0]), 'area', height, width)
    blur = {'op': 'blur', 'kernel': 'iso', 'size': 21, 'sigma_x': sigma, 'sigma_y': sigma, 'rotation': 0.0}
    steps = {
        'blur': [blur],
        'downscale': [small, resize_step('back', 1.0, 'bilinear', height, width)],
        'gaussian': [{**noise, 'kind': 'gaussian', 'sigma': between(*stage.gaussian_sigma)}],
        'poisson': [{**noise, 'kind': 'poisson', 'scale': between(*stage.poisson_scale)}],
        'jpeg': [{'op': 'jpeg', 'quality': round(between(*reversed(stage.jpeg_quality)))}],
    }
    return {'height': int(height), 'width': int(width), 'steps': [{**step, 'stage': kind} for step in steps[kind]]}


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
