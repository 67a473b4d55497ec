"""Checks that an image file is complete and does not have too many pixels.

OpenCV silently fills the missing part of a truncated JPEG with grey, whereas Pillow raises an error.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from rass_mm.errors import DataError
from rass_mm.files.damage import fault_in
from rass_mm.files.headers import size_in_header

ENDINGS = {b'\xff\xd8\xff': b'\xff\xd9', b'\x89PNG': b'IEND'}
"""First bytes of a format, and bytes that a complete file has near its end."""
TAIL = 64


MAX_PIXELS = 89_478_485
"""Default limit on the number of pixels of an image.

It is the limit of Pillow and corresponds to a quarter of a GiB for three channels of 8 bits.
"""

MAX_TEXT = 2**26
"""Longest text of a PNG file that is accepted, in bytes."""


class UnknownImageError(DataError):
    """Raised if a file is not an image of a type that Pillow supports."""


class TooManyPixelsError(DataError):
    """Raised if an image has more pixels than the limit."""


def check_pixels(data: bytes, most: int = MAX_PIXELS) -> None:
    """Checks that an image file has at most `most` pixels, without decoding them.

    A file type that neither Pillow nor `size_in_header` supports is accepted without a check.

    Raises:
        TooManyPixelsError: the image is too large.
        DataError: the header is damaged. The message is the reason without the file name.
    """
    try:
        with without_pillow_limit():
            size = Image.open(io.BytesIO(data)).size
    except UnidentifiedImageError:
        size = size_in_header(data)
    except Exception as error:  # on damaged bytes, Pillow raises almost any error
        raise DataError(str(error)) from error
    width, height = size or (0, 0)
    if width * height > most:
        raise TooManyPixelsError(
            f'the image has {width}x{height} pixels ({width * height:,}), more than the limit of {most:,} pixels, and '
            'was not decoded. If it is not damaged, raise the limit: --max-pixels '
            f'{width * height} (in Python and in loading transforms: max_pixels).'
        )


def check_size(data: bytes, path: str, most: int = MAX_PIXELS) -> None:
    """Checks the number of pixels like `check_pixels`, with the file name in the error message.

    Bytes of an unknown type or with a damaged header are accepted, because their decoder reports the fault.

    Raises:
        TooManyPixelsError: the image is too large.
    """
    try:
        check_pixels(data, most)
    except TooManyPixelsError as error:
        raise TooManyPixelsError(f'{path}: {error}') from None
    except DataError:
        return


class _PillowLimits:
    """The limits of Pillow, which are global, and the number of blocks of all threads that are without them."""

    def __init__(self) -> None:
        self.lock, self.blocks = threading.Lock(), 0
        self.before: tuple[int | None, int] = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK

    def remove(self) -> None:
        with self.lock:
            if not self.blocks:
                self.before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, MAX_TEXT
            self.blocks += 1

    def restore(self) -> None:
        with self.lock:
            self.blocks -= 1
            if not self.blocks:
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = self.before


_LIMITS = _PillowLimits()


@contextmanager
def without_pillow_limit() -> Iterator[None]:
    """Context manager. Inside the block, Pillow accepts images of any size and long texts in PNG files.

    `check_pixels` checks the size instead. Some editors write texts of several MB, e.g. the workflow that created an
    image. Blocks of several threads can overlap.
    """
    _LIMITS.remove()
    try:
        yield
    finally:
        _LIMITS.restore()


def decoded(data: bytes) -> Image.Image:
    """Decodes an image file completely with Pillow, which also detects damage in the middle of the file.

    Raises:
        UnknownImageError: the bytes are not an image of a known type.
        DataError: the file is truncated or damaged. The message is the reason without the file name.
    """
    try:
        with without_pillow_limit():
            image = Image.open(io.BytesIO(data))
            image.load()
    except UnidentifiedImageError as error:  # Pillow's message contains a memory address
        raise UnknownImageError('not an image of a known type') from error
    except Exception as error:  # on damaged bytes, Pillow's decoders raise almost any error, e.g. TypeError
        raise DataError(str(error)) from error
    fault = fault_in(data)
    if fault is not None:
        raise DataError(fault)
    return image


def decode_fully(data: bytes, path: str) -> Image.Image:
    """Decodes an image file like `decoded`, with the file name in the error messages.

    Raises:
        DataError: the file is truncated, damaged, or not an image.
    """
    try:
        return decoded(data)
    except DataError as error:
        raise _unreadable(path, error) from error


def check_complete(data: bytes, path: str) -> None:
    """Raises a DataError if an image file is truncated or damaged.

    Almost every JPEG and PNG is checked without decoding all of its pixels. All other files are fully decoded.
    """
    for start, end in ENDINGS.items():
        if data.startswith(start) and end in data[-TAIL:]:
            fault = fault_in(data)
            if fault is None:
                return
            raise DataError(f'{path}: the image is damaged ({fault}). Copy it again or remove it from the data set.')
    check_decodable(data, path)


def check_decodable(data: bytes, path: str) -> None:
    """Raises a DataError unless Pillow or, if Pillow does not support the file type, OpenCV decodes all of a file.

    All commands that read images accept the same file types.
    """
    try:
        decoded(data)
    except UnknownImageError as error:
        if decoded_by_opencv(data) is None:
            raise _unreadable(path, error) from error
    except DataError as error:
        raise _unreadable(path, error) from error


def decoded_by_opencv(data: bytes) -> np.ndarray | None:
    """Returns the pixels of an image file as stored, (H, W) or (H, W, 3 or 4) in BGR order, or None."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


def _unreadable(path: str, reason: DataError) -> DataError:
    return DataError(f'{path}: the image cannot be read ({reason}). Copy it again or remove it from the data set.')
