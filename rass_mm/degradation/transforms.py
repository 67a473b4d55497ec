"""Low-quality recipe as mmseg transforms: random for training, fixed per image for testing."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from rass_mm.degradation.applying import apply
from rass_mm.degradation.drawing import draw
from rass_mm.degradation.planning import image_seed
from rass_mm.degradation.recipe import OSEDIFF, override
from rass_mm.degradation.severity import KINDS, at_severity, scaled
from rass_mm.errors import ConfigError, DataError


@TRANSFORMS.register_module()
class LQDegradation(BaseTransform):
    """Degrades `img` with randomly drawn parameters. Labels and all other keys are unchanged.

    Place this transform after crops and flips, because the recipe is designed for the input size of the network.

    Required keys: `img`, (H, W, 3) BGR, uint8 or floating point in 0..255.
    Modified keys: `img`, (H, W, 3) BGR uint8.
    Added keys: `degradation`, the drawn parameters (a dict for `apply`), or None if the image is not degraded.

    Args:
        prob: Probability that an image is degraded.
        severity: Severity of the degradation, 0 to 1, or a range (low, high) from which it is drawn uniformly for each
            image. 1 is the recipe itself, see `rass_mm.degradation.severity.scaled`. An image keeps its kernels, noise
            patterns and order of steps at every severity.
        recipe: Changes to the OSEDiff recipe, e.g. `dict(first=dict(jpeg_quality=(50, 95)), final_sinc_prob=0.5)`;
            `dict(version=1)` trains with the rules used before recipe version 2.

    Raises:
        ConfigError: `prob`, `severity` or `recipe` is not valid.
    """

    def __init__(
        self,
        prob: float = 1.0,
        recipe: Mapping[str, Any] | None = None,
        severity: float | tuple[float, float] = 1.0,
    ) -> None:
        if not 0 <= prob <= 1:
            raise ConfigError(f'LQDegradation: prob is {prob}, but it must be a probability in the range 0 to 1.')
        self.prob = prob
        self.recipe = override(OSEDIFF, recipe or {})
        self.severity = _severity_range(severity)

    def transform(self, results: dict) -> dict:
        """Degrades `results['img']`.

        Args:
            results: The sample, with `img` as described in the class docstring.

        Returns:
            The same dict.
        """
        image = _as_uint8(results['img'], type(self).__name__)
        # mmengine seeds numpy's global generator in every worker. The recipe uses exactly one draw from it per image,
        # so that the transforms that follow do not depend on the recipe.
        rng = np.random.default_rng(np.random.randint(2**32, dtype=np.int64))
        results['img'], results['degradation'] = image, None
        if rng.random() < self.prob:
            results['degradation'] = self._drawn(rng, *image.shape[:2])
            results['img'] = apply(image, results['degradation'])
        return results

    def _drawn(self, rng: np.random.Generator, height: int, width: int) -> dict:
        """Draws the parameters of an image. Its severity is drawn last, so that the other draws do not depend on it."""
        drawn = draw(self.recipe, rng, height, width)
        low, high = self.severity
        return drawn if low == high == 1 else scaled(drawn, float(rng.uniform(low, high)), self.recipe)

    def __repr__(self) -> str:
        """Returns the transform with its arguments, for logs."""
        return f'{type(self).__name__}(prob={self.prob}, severity={self.severity}, recipe={self.recipe})'


@TRANSFORMS.register_module()
class FixedDegradation(BaseTransform):
    """Degrades `img` with parameters that depend only on the image name, so every run and worker uses the same ones.

    Place this transform directly after loading. Labels and all other keys are unchanged.

    Required keys: `img`, (H, W, 3) BGR, uint8 or floating point in 0..255; `img_path`.
    Modified keys: `img`, (H, W, 3) BGR uint8; unchanged if `kind` is None.

    Args:
        kind: One of `rass_mm.degradation.severity.KINDS`, or None for the clean image.
        severity: 0 to 1, see `at_severity`.
        seed: Seed of the whole test. The seed of an image is a hash of this seed and the image name.
        folder: The folder of the images; image names are relative to it. With None, the names are the file names.
        recipe: Changes to the OSEDiff recipe that 'mixed' draws from, e.g. `dict(version=1)`.

    Raises:
        ConfigError: `kind`, `severity` or `recipe` is not valid.
    """

    def __init__(
        self,
        kind: str | None = None,
        severity: float = 0.0,
        seed: int = 0,
        folder: str | None = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        self.seed = seed
        self.folder = folder
        self.recipe = override(OSEDIFF, recipe or {})
        self.set(kind, severity)

    def set(self, kind: str | None, severity: float) -> None:
        """Selects another degradation, which takes effect with the next pass over the data.

        Raises:
            ConfigError: `kind` or `severity` is not valid.
        """
        if kind is not None and kind not in KINDS or not 0 <= severity <= 1:
            raise ConfigError(
                f'There is no degradation {kind!r} of severity {severity}. Choose one of {KINDS} '
                'and a severity in the range 0 to 1.'
            )
        self.kind, self.severity = kind, severity

    def transform(self, results: dict) -> dict:
        """Degrades `results['img']`.

        Args:
            results: The sample, with the keys described in the class docstring.

        Returns:
            The same dict.
        """
        if self.kind is not None:
            image = _as_uint8(results['img'], type(self).__name__)
            path = results['img_path']
            name = os.path.relpath(path, self.folder) if self.folder else os.path.basename(path)
            seed = image_seed(self.seed, name.replace(os.sep, '/'))
            results['img'] = apply(image, at_severity(self.kind, self.severity, *image.shape[:2], seed, self.recipe))
        return results

    def __repr__(self) -> str:
        """Returns the transform with its arguments, for logs."""
        drawn = f'seed={self.seed}, recipe_version={self.recipe.version}'
        return f'{type(self).__name__}(kind={self.kind}, severity={self.severity}, {drawn})'


def _severity_range(severity: Any) -> tuple[float, float]:
    """Returns the smallest and the largest severity of the argument `severity` of `LQDegradation`."""
    ends = tuple(severity) if isinstance(severity, list | tuple) else (severity, severity)
    numbers = len(ends) == 2 and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
    if not numbers or not 0 <= ends[0] <= ends[1] <= 1:
        raise ConfigError(
            f'LQDegradation: severity is {severity!r}, but it must be a number in the range 0 to 1, or a range '
            '(low, high) with 0 <= low <= high <= 1.'
        )
    return ends


def _as_uint8(image: np.ndarray, needer: str) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f'{needer} needs a BGR image of shape (H, W, 3), but img has shape {image.shape}. '
            "Load it with LoadImageFromFile(color_type='color') and place the degradation before PackSegInputs."
        )
    if image.dtype == np.uint8:
        return image
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)
