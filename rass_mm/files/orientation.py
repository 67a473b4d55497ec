"""EXIF orientation of image files, and a check that a label map agrees with it."""

import io

import numpy as np
from PIL import Image

from rass_mm.files.integrity import without_pillow_limit

ORIENTATION = 0x0112
MARKS = (b'Exif', b'eXIf', b'EXIF')
"""Byte strings, one of which occurs in every JPEG, PNG or WebP file with EXIF data."""
DRAWN_ON = ('displayed', 'stored')
QUARTER_TURNS = (5, 6, 7, 8)


def orientation_of(data: bytes) -> int:
    """Returns the EXIF orientation of an image file from its bytes, 1 to 8. Without one, returns 1 (upright)."""
    if not any(mark in data for mark in MARKS):
        return 1
    with without_pillow_limit():
        return exif_orientation(Image.open(io.BytesIO(data)))


def exif_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation to apply to an opened image, 1 to 8. Without one, returns 1 (upright)."""
    # Decoders apply the orientation of a TIFF themselves.
    found = 1 if image.format == 'TIFF' else image.getexif().get(ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an array of shape (H, W, ...) upright. `orientation` is its EXIF orientation, 1 to 8."""
    if orientation in QUARTER_TURNS:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def turn_label(orientation: int, size: tuple[int, int], label: tuple[int, int], drawn_on: str | None) -> bool:
    """Returns whether a label map must be turned like its image.

    Args:
        orientation: EXIF orientation of the image, 1 to 8.
        size: (H, W) of the upright image.
        label: (H, W) of the label map as stored.
        drawn_on: 'displayed' for labels of the upright image, 'stored' for labels of the stored pixels, None if
            unknown.

    Raises:
        ValueError: `drawn_on` is None, and the size of the label map does not show that it matches the upright image.
            The message is the reason, without a file name.
    """
    if orientation == 1 or drawn_on == 'displayed':
        return False
    if drawn_on == 'stored':
        return True
    if orientation in QUARTER_TURNS and size[0] != size[1]:
        if label == size[::-1]:
            raise ValueError(
                f'the image has the EXIF orientation {orientation} and is {size[1]}x{size[0]} (width x height) when '
                f'displayed, but its label map has the size of the stored pixels, {label[1]}x{label[0]}'
            )
        return False
    raise ValueError(
        f'the image has the EXIF orientation {orientation}, and the size of its label map does not show whether it '
        f'was drawn on the displayed or on the stored pixels'
    )
