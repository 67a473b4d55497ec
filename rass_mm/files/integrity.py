"""Checks that the bytes of an image file are complete.

OpenCV silently fills the missing part of a truncated JPEG with grey, whereas Pillow raises an error.
"""

import io

from PIL import Image, UnidentifiedImageError

from rass_mm.errors import DataError

ENDINGS = {b'\xff\xd8\xff': b'\xff\xd9', b'\x89PNG': b'IEND'}
"""First bytes of a format, with bytes near the end of a complete file."""
TAIL = 64


class UnknownImageError(DataError):
    """The bytes are not an image of a type that Pillow supports."""


def decoded(data: bytes) -> Image.Image:
    """Decodes an image file completely with Pillow, which also detects damage in the middle of the file.

    Raises:
        UnknownImageError: the bytes are not an image of a known type.
        DataError: the file is truncated or damaged. The message is the reason without the file name.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError as error:  # Pillow's message contains a memory address
        raise UnknownImageError('not an image of a known type') from error
    except Exception as error:  # on damaged bytes, Pillow's decoders raise almost any error, e.g. TypeError
        raise DataError(str(error)) from error
    return image


def decode_fully(data: bytes, path: str) -> Image.Image:
    """Decodes an image file like `decoded`, with the file name in the error messages.

    Raises:
        DataError: the file is truncated, damaged, or not an image.
    """
    try:
        return decoded(data)
    except DataError as error:
        raise DataError(
            f'{path}: the image cannot be read ({error}). Copy it again or remove it from the data set.'
        ) from error


def check_complete(data: bytes, path: str) -> None:
    """Raises a DataError if the bytes of an image file end too early.

    For almost every JPEG and PNG, the last bytes show that the file is complete. All other files are fully decoded.
    """
    for start, end in ENDINGS.items():
        if data.startswith(start) and end in data[-TAIL:]:
            return
    decode_fully(data, path)
