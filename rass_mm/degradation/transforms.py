"""The low-quality recipe as an mmseg transform."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from rass_mm.degradation.recipe import OSEDIFF, apply, draw, override
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
        recipe: Changes to the OSEDiff recipe, e.g. `dict(first=dict(jpeg_quality=(50, 95)), final_sinc_prob=0.5)`.
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
        image = _as_uint8(results['img'])
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


def _as_uint8(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f'LQDegradation needs a BGR image of shape (H, W, 3), but img has shape {image.shape}. '
            "Load it with LoadImageFromFile(color_type='color') and degrade before PackSegInputs."
        )
    if image.dtype == np.uint8:
        return image
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)
