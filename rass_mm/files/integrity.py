"""Whether the bytes of an image file are whole.

OpenCV fills the missing part of a truncated JPEG with grey and reports nothing; Pillow raises.
"""

import io

from PIL import Image, UnidentifiedImageError

from rass_mm.errors import DataError

ENDINGS = {b'\xff\xd8\xff': b'\xff\xd9', b'\x89PNG': b'IEND'}
"""First bytes of a format -> bytes near the end of a complete file."""
TAIL = 64


class UnknownImageError(DataError):
    """The bytes are of no image type that Pillow knows."""


def decoded(data: bytes) -> Image.Image:
    """Decodes an image file to its end with Pillow; finds damage in the middle, too.

    Raises:
        UnknownImageError: no image of a known type.
        DataError: truncated or damaged; the message is the reason without the file's name.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError as error:  # its own message names a memory address
        raise UnknownImageError('not an image of a known type') from error
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything, TypeError for one
        raise DataError(str(error)) from error
    return image


def decode_fully(data: bytes, path: str) -> Image.Image:
    """`decoded` with the file's name in its errors.

    Raises:
        DataError: truncated, damaged, or not an image.
    """
    try:
        return decoded(data)
    except DataError as error:
        raise DataError(
            f'{path}: the image cannot be read ({error}). Copy it again or remove it from the data set.'
        ) from error


def check_complete(data: bytes, path: str) -> None:
    """Raises a DataError where the bytes of an image file end too early.

    The last bytes decide for nearly every JPEG and PNG; only the others are decoded in full.
    """
    for start, end in ENDINGS.items():
        if data.startswith(start) and end in data[-TAIL:]:
            return
    decode_fully(data, path)
