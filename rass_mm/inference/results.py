"""Results of predictions on single images."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from PIL import Image

from rass_mm.files.atomic import write_bytes
from rass_mm.files.images import Picture, write_picture
from rass_mm.files.naming import refuse_folder
from rass_mm.inference.overlay import overlay

MOST_8_BIT_CLASSES = 255


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Label map of one image.

    Attributes:
        labels: (H, W) class ids at the size of the upright image: uint8, or uint16 for more than 255 classes.
        classes: name of each class, by id.
        palette: RGB colour of each class, by id.
        image: (H, W, 3) uint8 RGB, the image that was segmented, upright.
        confidence: (H, W) uint8, the probability of the label scaled to 0..255, see `probability_of`; None if it was
            not requested.
        restored: (h, w, 3) uint8 RGB, the restored image that was segmented; None for models that do not restore.
    """

    labels: np.ndarray
    classes: Sequence[str]
    palette: Sequence[tuple[int, int, int]] = field(repr=False)
    image: np.ndarray = field(repr=False)
    confidence: np.ndarray | None = field(default=None, repr=False)
    restored: np.ndarray | None = field(default=None, repr=False)

    @cached_property
    def counts(self) -> dict[int, int]:
        """Number of pixels of each class that is present, by class id."""
        return {label: int(count) for label, count in enumerate(np.bincount(self.labels.ravel())) if count}

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of the pixels of each class that is present, by class name, largest first."""
        found: dict[str, float] = {}
        for label, count in self.counts.items():  # two classes may have the same name
            found[self.classes[label]] = found.get(self.classes[label], 0.0) + count / self.labels.size
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def overlay(self, opacity: float = 0.55) -> np.ndarray:
        """Draws the label map over the image, with a legend of the classes that are present.

        Args:
            opacity: weight of the class colours in [0, 1].

        Returns:
            (h, w, 3) uint8 RGB. A large image is reduced to a longest side of 1600 pixels; a narrow image is enlarged.
        """
        shares = {label: count / self.labels.size for label, count in self.counts.items()}
        return overlay(self.image, self.labels, self.classes, self.palette, shares, opacity)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the label map atomically as PNG: class ids with the palette, or 16-bit grey for more than 255 classes.

        Raises:
            DataError: the path is a folder.
            OSError: the file cannot be written.
        """
        refuse_folder(path, 'labels.png')
        write_bytes(path, label_png(self.labels, self.palette))


@dataclass(frozen=True, eq=False)
class Restoration:
    """A restored image.

    Attributes:
        pixels: (H, W, 3) float32 RGB in [0, 1].
        source: the image that was restored, with its alpha, bit depth and profile.
    """

    pixels: np.ndarray
    source: Picture = field(repr=False)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the image atomically with the colour mode, alpha, bit depth and profile of its source.

        See `write_picture` for properties that the file type does not support.

        Raises:
            DataError: the path is a folder, or the file type is unknown or does not support an image of this size.
            OSError: the file cannot be written.
        """
        refuse_folder(path, 'restored.png')
        write_picture(path, self.pixels, self.source)


def label_png(labels: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> bytes:
    """Encodes a label map as PNG: uint8 ids with a palette, or uint16 ids as 16-bit grey."""
    if labels.dtype == np.uint16:
        return image_png(labels)
    image = Image.fromarray(np.ascontiguousarray(labels))
    image.putpalette(np.asarray(palette, np.uint8).tobytes())  # turns the mode from grey to palette
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    return buffer.getvalue()


def image_png(image: np.ndarray) -> bytes:
    """Encodes a grey (H, W) or RGB (H, W, 3) image as PNG.

    Raises:
        OSError: the image cannot be encoded.
    """
    done, data = cv2.imencode('.png', image if image.ndim == 2 else image[..., ::-1])
    if not done:
        raise OSError('OpenCV cannot encode the image as PNG')
    return data.tobytes()
