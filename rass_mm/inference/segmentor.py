"""Trained segmentor for photos, which is loaded once and segments files, arrays and Pillow images."""

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmseg.registry import TRANSFORMS
from torch import nn

from rass_mm.engine.ready import PREPARED, Preparation
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.files.tensors import first_line
from rass_mm.inference.classes import Palette
from rass_mm.inference.labelling import Maps, Watch, label_image
from rass_mm.inference.modes import ModeChoice, SegmentOptions
from rass_mm.inference.photos import Photo, as_bgr
from rass_mm.inference.results import MOST_8_BIT_CLASSES, Segmentation
from rass_mm.segmentation import RestoreThenSegment

UNPREPARED = Preparation()
"""Precision of a model that is not prepared."""


class Segmentor:
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
        self.model, self.classes, self.palette = model, list(classes), palette
        self.backend, self.to_float32, self.steps = _built(steps)
        self.use(options or SegmentOptions())

    def use(self, options: SegmentOptions) -> None:
        """Sets the options for all following predictions.

        Raises:
            ConfigError: the overlap is not smaller than the window.
        """
        self.options = options
        self.choice = ModeChoice(inner_segmentor(self.model), options)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(chain(self.model.parameters(), self.model.buffers())).device

    @property
    def dtype(self) -> str:
        """Precision of the model: 'float32', 'bfloat16' or 'float16'."""
        return getattr(self.model, PREPARED, UNPREPARED).dtype

    @property
    def restores(self) -> bool:
        """Whether the model restores images before it segments them."""
        return isinstance(self.model, RestoreThenSegment)

    def predict(
        self, images: Photo | Sequence[Photo], max_pixels: int = MAX_PIXELS
    ) -> Segmentation | list[Segmentation]:
        """Segments one image, or each image of a list.

        The label map has the size of the image after it is turned upright by its EXIF orientation. It equals the label
        map of mmseg's `inference_model` if both use the same mode and the model was loaded with `deterministic`.

        Args:
            images: an image file, an array, a Pillow image, or a list of these. Arrays are RGB, not BGR as in mmseg:
                (H, W, 3) or grey (H, W), uint8, uint16, or float32 in [0, 1].
            max_pixels: largest number of pixels of a file, see `read_picture`.

        Returns:
            The label map with its classes, or a list of them for a list of images.

        Raises:
            DataError: an image cannot be read, the network fails on it, or memory is too small for it.
        """
        if isinstance(images, list | tuple):
            return [self.predict(image, max_pixels) for image in images]
        path = os.fspath(images) if isinstance(images, str | os.PathLike) else None
        return self.segment(as_bgr(images, max_pixels, self.backend), path)

    def segment(self, image: np.ndarray, path: str | None = None, watch: Watch | None = None) -> Segmentation:
        """Segments one image.

        Args:
            image: (H, W, 3) uint8 BGR, upright.
            path: path of the image file, for the meta information of the sample.
            watch: function that is called with the finished fraction of the image, or None.

        Raises:
            DataError: the network fails on the image, or memory is too small for it.
        """
        try:
            maps = label_image(self.model, self.packed(image, path), self.choice, self.options.confidence, watch)
        except (RuntimeError, MemoryError) as error:  # the errors of networks and of memory, CUDA's included
            raise _failure(image, error) from error
        return self._result(image, maps)

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

    def _result(self, image: np.ndarray, maps: Maps) -> Segmentation:
        kind = np.uint8 if len(self.classes) <= MOST_8_BIT_CLASSES else np.uint16
        restored = None if maps.restored is None else maps.restored[..., ::-1]
        labels = maps.labels.astype(kind)
        return Segmentation(labels, self.classes, self.palette, image[..., ::-1], maps.confidence, restored)


def _failure(image: np.ndarray, error: Exception) -> DataError:
    size = f'{image.shape[1]}x{image.shape[0]} pixels'
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or 'memory' in str(error):
        return DataError(
            f'Too little memory for an image of {size}. Use windows (--mode windows), smaller windows (--window), or a '
            'smaller batch (--batch-size).'
        )
    return DataError(f'The network fails on an image of {size} ({first_line(error)}).')


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
