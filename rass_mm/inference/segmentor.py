"""Trained segmentor for photos, which is loaded once and segments files, arrays and Pillow images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import ConfigDict
from mmseg.registry import TRANSFORMS
from torch import nn

from rass_mm.errors import ConfigError
from rass_mm.inference.classes import Palette
from rass_mm.inference.labelling import label_image
from rass_mm.inference.modes import ModeChoice, SegmentOptions
from rass_mm.inference.photo_segmentor import Maps, PhotoSegmentor
from rass_mm.inference.pretrained import PretrainedMixin
from rass_mm.labelling.confidence import Watch
from rass_mm.segmentation import RestoreThenSegment


class Segmentor(PretrainedMixin, PhotoSegmentor):
    """mmseg segmentor with its test pipeline, class names and options, as returned by `load_segmentor`.

    Args:
        model: the model, in eval mode on its device, prepared or not, see `rass_mm.engine.ready.prepare`.
        steps: configs of the steps of its test pipeline.
        classes: name of each class.
        palette: RGB colour of each class.
        options: see `SegmentOptions`; None uses its defaults.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: Sequence[Mapping[str, Any]],
        classes: Sequence[str],
        palette: Palette,
        options: SegmentOptions | None = None,
    ) -> None:
        self.backend, self.to_float32, self.steps = _built(steps)
        super().__init__(model, classes, palette, options)

    def _choice(self, options: SegmentOptions) -> ModeChoice:
        return ModeChoice(inner_segmentor(self.model), options, ConfigDict)

    @property
    def restores(self) -> bool:
        """Whether the model restores images before it segments them."""
        return isinstance(self.model, RestoreThenSegment)

    def packed(self, image: np.ndarray, path: str | None) -> dict[str, Any]:
        """Returns the output of the test pipeline for one (H, W, 3) uint8 BGR image, as a batch with one item."""
        size = image.shape[:2]
        results: Any = {'img_path': path, 'img': image, 'img_shape': size, 'ori_shape': size}
        results |= {'reduce_zero_label': False, 'seg_fields': []}
        if self.to_float32:
            results['img'] = image.astype(np.float32)
        for step in self.steps:
            results = step(results)
        if not isinstance(results, dict) or 'inputs' not in results:
            raise ConfigError("The test pipeline must end with a step that packs one image, such as 'PackSegInputs'.")
        return {'inputs': [results['inputs']], 'data_samples': [results['data_samples']]}

    def _maps(self, data: dict[str, Any], watch: Watch | None) -> Maps:
        return label_image(self.model, data, self.choice, self.options.confidence, watch)


def _built(steps: Sequence[Mapping[str, Any]]) -> tuple[str, bool, list[Any]]:
    """Builds the steps of a test pipeline, except for those that load images or labels.

    Returns:
        The name of the image decoder, whether images are converted to float32, and the built steps.

    Raises:
        ConfigError: a step is not registered, or loads images that are not in colour.
    """
    backend, to_float32, built = 'cv2', False, []
    for step in steps:
        kind = TRANSFORMS.get(step['type']) if isinstance(step['type'], str) else step['type']
        if kind is None:
            raise ConfigError(
                f'The test pipeline contains {step["type"]!r}, which is not registered. Add the module that registers '
                'it to custom_imports.'
            )
        if issubclass(kind, LoadImageFromFile):
            if step.get('color_type', 'color') != 'color':
                raise ConfigError(f"The test pipeline loads {step['color_type']!r} images. Only 'color' is supported.")
            backend, to_float32 = step.get('imdecode_backend', 'cv2'), step.get('to_float32', False)
        elif not issubclass(kind, LoadAnnotations):
            built.append(TRANSFORMS.build(step))
    return backend, to_float32, built


def inner_segmentor(model: nn.Module) -> nn.Module:
    """Returns the segmentor inside a `RestoreThenSegment`, or the model itself."""
    return model.segmentor if isinstance(model, RestoreThenSegment) else model
