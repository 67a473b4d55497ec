"""Reading of clean images for degraded copies."""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from rass_mm.errors import DataError
from rass_mm.files.images import needs_scaling, picture_of, to_bgr
from rass_mm.files.integrity import MAX_PIXELS, check_pixels, decoded
from rass_mm.files.regular import check_regular
from rass_mm.files.verified import State, file_state


def read_source(source: Path, max_pixels: int) -> tuple[State, np.ndarray, str]:
    """Reads an image. Its errors are those of the image, unlike a full disk while it is extracted."""
    try:
        return file_state(source), *read_image(source, max_pixels)
    except OSError as error:
        raise DataError(str(error)) from error


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, str]:
    """Reads an image like mmseg's loader, but raises an error for damaged files.

    Args:
        path: The image file.
        max_pixels: Largest number of pixels; a larger image is not decoded.

    Returns:
        The image, (H, W, 3) uint8 BGR, and the SHA-256 of the file.

    Raises:
        DataError: the image cannot be read. The message is the reason without the file name.
    """
    check_regular(path)
    try:
        data = path.read_bytes()
        check_pixels(data, max_pixels)
        if needs_scaling(data):
            image = to_bgr(picture_of(data, path, max_pixels).pixels)
            return image, hashlib.sha256(data).hexdigest()
        decoded(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error, DataError) as error:
        raise DataError(str(error).removeprefix(f'{path}: ')) from error
    if image is None:
        raise DataError('OpenCV cannot decode the image')
    return image, hashlib.sha256(data).hexdigest()
