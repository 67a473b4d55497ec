"""The low-quality recipe as mmseg transforms: freshly drawn for training, fixed per image for tests."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from rass_mm.degradation.builder import image_seed
from rass_mm.degradation.recipe import OSEDIFF, apply, draw, override
from rass_mm.degradation.severity import KINDS, at_severity
from rass_mm.errors import ConfigError, DataError


@TRANSFORMS.register_module()
class LQDegradation(BaseTransform):
    """Degrades `img` by freshly drawn parameters; labels and all other keys stay as they are.

    Place it after the crops and flips: the recipe is meant for the size that the network sees.

    Required keys: `img`, (H, W, 3) BGR, uint8 or floating point in 0..255.
    Modified keys: `img`, (H, W, 3) BGR uint8.
    Added keys: `degradation`, the drawn parameters (a dict for `recipe.apply`), or None if the image was left alone.

    Args:
        prob: Probability that an image is degraded.
        recipe: Changes to the OSEDiff recipe, e.g. `dict(first=dict(jpeg_quality=(50, 95)), final_sinc_prob=0.5)`;
            `dict(version=1)` trains as before recipe version 2.
    """

    def __init__(self, prob: float = 1.0, recipe: Mapping[str, Any] | None = None) -> None:
        if not 0 <= prob <= 1:
            raise ConfigError(f'LQDegradation: prob is {prob}; it must be a probability, 0 to 1.')
        self.prob = prob
        self.recipe = override(OSEDIFF, recipe or {})

    def transform(self, results: dict) -> dict:
        """Degrades `results['img']`.

        Args:
            results: The sample, with `img` as in the class's docstring.

        Returns:
            The same dict.
        """
        image = _as_uint8(results['img'], type(self).__name__)
        # mmengine seeds numpy's global generator in every worker. One draw from it per image, whatever the recipe then
        # does, keeps the transforms that follow independent of the recipe.
        rng = np.random.default_rng(np.random.randint(2**32, dtype=np.int64))
        results['img'], results['degradation'] = image, None
        if rng.random() < self.prob:
            results['degradation'] = draw(self.recipe, rng, *image.shape[:2])
            results['img'] = apply(image, results['degradation'])
        return results

    def __repr__(self) -> str:
        """The transform with its arguments, for logs."""
        return f'{type(self).__name__}(prob={self.prob}, recipe={self.recipe})'


@TRANSFORMS.register_module()
class FixedDegradation(BaseTransform):
    """Degrades `img` by parameters that depend on the image's name only: the same in every run and every worker.

    Place it right after loading. Labels and all other keys stay as they are.

    Required keys: `img`, (H, W, 3) BGR, uint8 or floating point in 0..255; `img_path`.
    Modified keys: `img`, (H, W, 3) BGR uint8; left alone if `kind` is None.

    Args:
        kind: One of `rass_mm.degradation.severity.KINDS`, or None for the clean image.
        severity: 0 to 1, see `at_severity`.
        seed: Seed of the whole test; an image's own is a hash of it and of the image's name.
        folder: The images' folder, which is no part of their names; None takes the file names alone.
        recipe: Changes to the OSEDiff recipe that 'mixed' draws from, e.g. `dict(version=1)`.

    Raises:
        ConfigError: no such kind, severity or recipe.
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
        """Chooses another degradation, from the next pass over the data on."""
        if kind is not None and kind not in KINDS or not 0 <= severity <= 1:
            raise ConfigError(f'No degradation {kind!r} of severity {severity}: need one of {KINDS} and 0 to 1.')
        self.kind, self.severity = kind, severity

    def transform(self, results: dict) -> dict:
        """Degrades `results['img']`.

        Args:
            results: The sample, with the keys of the class's docstring.

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
        """The transform with its arguments, for logs."""
        drawn = f'seed={self.seed}, recipe_version={self.recipe.version}'
        return f'{type(self).__name__}(kind={self.kind}, severity={self.severity}, {drawn})'


def _as_uint8(image: np.ndarray, needer: str) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f'{needer} needs a BGR image of shape (H, W, 3), but img has shape {image.shape}. '
            "Load it with LoadImageFromFile(color_type='color') and degrade before PackSegInputs."
        )
    if image.dtype == np.uint8:
        return image
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)
