"""Functions of the page and of the HTTP service: files in, files and values out."""

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rass_mm.app.degrading import NONE, Degradation
from rass_mm.app.limits import Limits
from rass_mm.app.models import Models
from rass_mm.app.pictures import eight_bits, heat_map
from rass_mm.app.reading import named, upload_bgr, upload_picture
from rass_mm.app.workspace import Workspace
from rass_mm.errors import ConfigError
from rass_mm.files.atomic import write_bytes
from rass_mm.inference.attention import class_attention, peak_to_mean
from rass_mm.inference.results import Restoration, Segmentation, image_png

Watch = Callable[[float], None]
"""Function that is called with the finished fraction of an image, in [0, 1]."""
ATTENTION_SIDE = 512
"""Longest side of the images whose attention is computed. The UNet processes them as a whole."""


@dataclass(frozen=True)
class Attention:
    """Attention to a class name.

    Attributes:
        picture: (h, w, 3) uint8 RGB, a heat map over the image.
        peak: maximum of the map, in [0, 1].
        peak_to_mean: ratio of the maximum to the mean.
    """

    picture: np.ndarray = field(repr=False)
    peak: float
    peak_to_mean: float


@dataclass(frozen=True)
class Service:
    """Functions of the app on files in a workspace.

    Args:
        models: the models.
        limits: the limits on uploads.
        workspace: the folder of the results.
    """

    models: Models
    limits: Limits
    workspace: Workspace

    def degrade(self, path: str | os.PathLike, degradation: Degradation) -> Path:
        """Writes a degraded copy of an image as PNG and returns its path. Without degradation, returns `path`.

        Raises:
            DataError: the upload cannot be used.
        """
        path = Path(path)
        if degradation.mode == NONE:
            return path
        return self._written(path, '_degraded.png', degradation.of(upload_bgr(path, self.limits))[..., ::-1])

    def restore(self, path: str | os.PathLike, watch: Watch | None = None) -> tuple[Path, Restoration]:
        """Restores an image. Returns the path of a PNG file, which is that of `rass-mm restore`, and the pixels.

        Raises:
            ConfigError: the app has no restorer, or too little memory.
            DataError: the upload cannot be used.
        """
        if self.models.restorer is None:
            raise ConfigError('This app has no restorer. Start it with --adapter.')
        path = Path(path)
        picture = upload_picture(path, self.limits)
        with self._models_for(path):
            found = self.models.restorer.restore(picture, watch)
        target = self.workspace.new(path.stem, '_restored.png')
        found.save(target)
        return target, found

    def segment(self, path: str | os.PathLike, which: str = 'segmentor', watch: Watch | None = None) -> Segmentation:
        """Segments an image like `rass-mm segment`.

        Args:
            path: the image file.
            which: 'segmentor' or 'baseline'.
            watch: see `Watch`.

        Raises:
            ConfigError: there is no such segmentor.
            DataError: the upload cannot be used, or the network fails on it.
        """
        found = self.models.segmentors.get(which)
        if found is None:
            names = ', '.join(self.models.segmentors) or 'none; start it with --checkpoint'
            raise ConfigError(f'This app has no {which!r}. Its segmentors: {names}.')
        path = Path(path)
        image = upload_bgr(path, self.limits, found.backend)
        with self._models_for(path):
            return found.segment(image, os.fspath(path), watch)

    def labels(self, path: str | os.PathLike, found: Segmentation, ending: str = '_labels.png') -> Path:
        """Writes the label map of an image as PNG and returns its path."""
        target = self.workspace.new(Path(path).stem, ending)
        found.save(target)
        return target

    def overlay(self, path: str | os.PathLike, found: Segmentation, ending: str = '_overlay.png') -> Path:
        """Writes the label map over the image, with a legend, as PNG and returns its path."""
        return self._written(Path(path), ending, found.overlay())

    def attention(self, path: str | os.PathLike, word: str) -> Attention:
        """Computes the attention of the restorer's UNet to a class name.

        An image with a side longer than `ATTENTION_SIDE` is reduced first.

        Raises:
            ConfigError: the restorer's prompt has no such class name.
            DataError: the upload cannot be used.
        """
        if word not in self.models.words:
            names = ', '.join(self.models.words) or 'none'
            raise ConfigError(f'The restorer has no class {word!r}. Choose from: {names}.')
        path = Path(path)
        pixels = _reduced(upload_picture(path, self.limits).pixels)
        with self._models_for(path):
            values = class_attention(self.models.restorer.network, pixels, self.models.words)[word]
        return Attention(heat_map(eight_bits(pixels), values), float(values.max()), peak_to_mean(values))

    def picture(self, path: str | os.PathLike, image: np.ndarray, ending: str) -> Path:
        """Writes a picture (H, W, 3) uint8 RGB as PNG and returns its path, which begins with the name of `path`."""
        return self._written(Path(path), ending, image)

    def archive(self, path: str | os.PathLike, files: Sequence[Path]) -> Path:
        """Writes files to a zip file and returns its path."""
        target = self.workspace.new(Path(path).stem, '_results.zip')
        with zipfile.ZipFile(target, 'w', zipfile.ZIP_STORED) as archive:  # PNG files are compressed already
            for file in files:
                archive.write(file, file.name)
        return target

    def about(self) -> dict[str, Any]:
        """Returns the models, their class names and the limits as values of JSON."""
        limits = {name: getattr(self.limits, name) for name in ('max_pixels', 'max_megabytes', 'max_files')}
        segmentors: Mapping[str, Any] = self.models.segmentors
        return {
            'limits': {**limits, 'keep_minutes': self.limits.keep},
            'restorer': self.models.restorer is not None,
            'attention': list(self.models.words),
            'segmentors': {name: list(model.classes) for name, model in segmentors.items()},
        }

    @contextmanager
    def _models_for(self, path: Path) -> Iterator[None]:
        """Context manager. Inside the block, only this thread uses the models. Errors name the upload."""
        with named(path), self.models.lock:
            self.workspace.check_open()  # if the app ends, a long computation is not started
            yield

    def _written(self, path: Path, ending: str, image: np.ndarray) -> Path:
        target = self.workspace.new(path.stem, ending)
        write_bytes(target, image_png(image))
        return target


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """Reduces (H, W, 3) float RGB to a longest side of `ATTENTION_SIDE` pixels."""
    height, width = pixels.shape[:2]
    factor = ATTENTION_SIDE / max(height, width)
    if factor >= 1:
        return pixels
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
