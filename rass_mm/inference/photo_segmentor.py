"""Segmentor for photos: what trained and exported segmentors have in common."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from rass_mm.engine.ready import PREPARED, Preparation
from rass_mm.errors import DataError
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.files.tensors import first_line
from rass_mm.inference.modes import ModeChoice, SegmentOptions
from rass_mm.inference.photos import Photo, as_bgr
from rass_mm.inference.results import MOST_8_BIT_CLASSES, Segmentation
from rass_mm.labelling.confidence import Watch

UNPREPARED = Preparation()
"""Precision of a model that is not prepared."""


@dataclass(frozen=True)
class Maps:
    """Label map of one image, with optional confidence and restored image.

    Args:
        labels: (H, W) int64 class ids at the original size of the image.
        confidence: (H, W) uint8, the probability of the label scaled to 0..255; None if it was not requested.
        restored: (h, w, 3) uint8 BGR, the restored image that a `RestoreThenSegment` segmented; None for other models.
    """

    labels: np.ndarray
    confidence: np.ndarray | None
    restored: np.ndarray | None


class PhotoSegmentor(ABC):
    """Segmentor with class names and options.

    Args:
        model: the model, in eval mode on its device.
        classes: name of each class.
        palette: RGB colour of each class.
        options: see `SegmentOptions`; None uses its defaults.
    """

    backend = 'cv2'
    """Name of the image decoder, see `read_bgr`."""
    restores = False
    """Whether the model restores images before it segments them."""

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        palette: Sequence[tuple[int, int, int]],
        options: SegmentOptions | None = None,
    ) -> None:
        self.model, self.classes, self.palette = model, list(classes), palette
        self.use(options or SegmentOptions())

    def use(self, options: SegmentOptions) -> None:
        """Sets the options for all following predictions.

        Raises:
            ConfigError: the overlap is not smaller than the window.
        """
        self.options = options
        self.choice = self._choice(options)

    @abstractmethod
    def _choice(self, options: SegmentOptions) -> ModeChoice:
        """Returns the choice of the test settings."""

    @abstractmethod
    def packed(self, image: np.ndarray, path: str | None) -> dict[str, Any]:
        """Returns the output of the test pipeline for one (H, W, 3) uint8 BGR image, as a batch with one item."""

    @abstractmethod
    def _maps(self, data: dict[str, Any], watch: Watch | None) -> Maps:
        """Computes the label map of one image from the output of the test pipeline."""

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(chain(self.model.parameters(), self.model.buffers())).device

    @property
    def dtype(self) -> str:
        """Precision of the model: 'float32', 'bfloat16' or 'float16'."""
        return getattr(self.model, PREPARED, UNPREPARED).dtype

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
            maps = self._maps(self.packed(image, path), watch)
        except (RuntimeError, MemoryError) as error:  # the errors of networks and of memory, CUDA's included
            raise _failure(image, error) from error
        return self._result(image, maps)

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
