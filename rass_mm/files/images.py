"""Reads image files as RGB in [0, 1] and writes them with the original colour mode, alpha, bit depth and profile.

Pillow interprets the file (alpha, palette, orientation, completeness) and decodes 8-bit pixels. OpenCV decodes pixels
of more than 8 bits, which Pillow truncates in colour images, and the file types that Pillow does not support.
"""

import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from rass_mm.errors import DataError
from rass_mm.files.atomic import write_bytes
from rass_mm.files.integrity import (
    MAX_PIXELS,
    TooManyPixelsError,
    UnknownImageError,
    check_pixels,
    decoded,
    decoded_by_opencv,
    without_pillow_limit,
)
from rass_mm.files.orientation import exif_orientation, turned
from rass_mm.files.regular import check_regular

logger = logging.getLogger(__name__)

READABLE = (
    *('.avif', '.bmp', '.dib', '.exr', '.gif', '.hdr', '.ico', '.jp2', '.jpe', '.jpeg', '.jpg', '.pbm', '.pcx', '.pfm'),
    *('.pgm', '.png', '.pnm', '.ppm', '.psd', '.ras', '.sr', '.tga', '.tif', '.tiff', '.webp'),
)
"""Suffixes of the files in a folder that are treated as images. A file given by name may have any suffix."""
WRITABLE = {
    '.bmp': {},
    '.jpeg': {'quality': 95},
    '.jpg': {'quality': 95},
    '.pgm': {},
    '.png': {},
    '.ppm': {},
    '.tif': {'compression': 'tiff_lzw'},
    '.tiff': {'compression': 'tiff_lzw'},
    '.webp': {'quality': 95},
}
"""Suffixes that are kept, with Pillow's options. All other types are written as PNG."""
DEEP = {'float32': ('.tif', '.tiff'), 'uint16': ('.pgm', '.png', '.ppm', '.tif', '.tiff')}
OPAQUE = ('.bmp', '.jpeg', '.jpg', '.pgm', '.ppm')
FULL = {'uint8': 255, 'uint16': 65535, 'float32': 1, 'float64': 1}
"""Pixel types, with the value of white."""
BAND = 256
GREY_MODES = ('1', 'L', 'LA', 'La')
ANIMATED = ('AVIF', 'GIF', 'PNG', 'TIFF', 'WEBP')
OTHER_SPACES = ('CMYK', 'YCbCr', 'LAB', 'HSV')


@dataclass(frozen=True)
class Picture:
    """Image with its colour mode, alpha, bit depth and profile, which can be applied to another image.

    Args:
        pixels: (H, W, 3) float32 RGB in [0, 1]; the channels of a grey image are equal.
        alpha: (H, W) float32 in [0, 1], or None.
        grey: whether the file has a single colour channel.
        depth: the pixel type of the file: 'uint8', 'uint16' or 'float32'.
        profile: the ICC colour profile of the file, or None.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    grey: bool
    depth: str
    profile: bytes | None


def read_picture(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads an image file and applies its EXIF orientation. Of an animation, only the first frame is read.

    Args:
        path: the file.
        max_pixels: largest number of pixels; a larger image is not decoded.

    Raises:
        DataError: the file is missing, not an image, too large, truncated or damaged, or its pixel type has no known
            range.
    """
    check_regular(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f'{path}: the image cannot be read ({error}). Copy it again or remove it.') from error
    return picture_of(data, path, max_pixels)


def picture_of(data: bytes, path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decodes the bytes of an image file like `read_picture`.

    Args:
        data: the content of the file.
        path: the file, for messages.
        max_pixels: largest number of pixels.

    Raises:
        DataError: see `read_picture`.
    """
    try:
        check_pixels(data, max_pixels)
        header = _header(data)
        array = _decoded(data, header)
        if header is not None:
            warn_of_frames(path, header)
    except TooManyPixelsError as error:
        raise DataError(f'{path}: {error}') from None
    except Exception as error:  # on damaged bytes, Pillow's decoders raise almost any error, e.g. TypeError
        raise DataError(f'{path}: the image cannot be read ({error}). Copy it again or remove it.') from error
    return _picture(array, header)


def warn_of_frames(path: str | os.PathLike, header: Image.Image) -> None:
    """Logs a warning if an image file is an animation, of which only the first frame is read."""
    if header.format in ANIMATED and getattr(header, 'n_frames', 1) > 1:
        logger.warning('%s has %d frames. Only the first one is used.', path, header.n_frames)


def needs_scaling(data: bytes) -> bool:
    """Returns whether mmcv cannot decode a file to 8 bits, so that `picture_of` and `to_bgr` are used instead.

    These are floating-point files and all file types that Pillow does not support.
    """
    try:
        with without_pillow_limit():
            return Image.open(io.BytesIO(data)).mode == 'F'
    except UnidentifiedImageError:
        return True
    except Exception:  # on damaged bytes, Pillow raises almost any error; the decoder names it
        return False


def to_bgr(pixels: np.ndarray) -> np.ndarray:
    """Converts (H, W, 3) float32 RGB in [0, 1] to uint8 BGR."""
    return np.rint(pixels[..., ::-1] * 255).astype(np.uint8)


def _header(data: bytes) -> Image.Image | None:
    """Returns the image fully decoded by Pillow, or None if Pillow does not support its type."""
    try:
        return decoded(data)
    except UnknownImageError:
        return None


def _decoded(data: bytes, header: Image.Image | None) -> np.ndarray:
    """Returns the upright pixels in the pixel type of the file.

    The shape is (H, W) for grey, or (H, W, 2 to 4) for grey and alpha, RGB, or RGB and alpha.
    """
    deep = decoded_by_opencv(data)
    if header is None and deep is None:
        raise DataError('not an image of a known type')
    if header is None or (deep is not None and deep.dtype != np.uint8):
        array = _like_header(deep, header)
    elif header.mode.startswith(('I', 'F')):
        array = np.asarray(header)
    else:
        array = np.asarray(header.convert(_plain_mode(header)))
    if array.dtype.name not in FULL:
        raise DataError(f'pixels of type {array.dtype} have no known range; save the image with 8 or 16 bits')
    if array.dtype.kind == 'f' and not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
        raise DataError(f'its values range from {array.min():g} to {array.max():g}; the expected range is 0 to 1')
    # Both decoders apply the orientation of a TIFF themselves, but not that of any other type.
    return array if header is None else turned(array, exif_orientation(header))


def _plain_mode(header: Image.Image) -> str:
    return ('L' if header.mode in GREY_MODES else 'RGB') + ('A' if header.has_transparency_data else '')


def _like_header(deep: np.ndarray, header: Image.Image | None) -> np.ndarray:
    """Returns OpenCV's pixels in RGB order, without the channels that OpenCV adds to those of the file."""
    if deep.ndim == 2:
        return deep
    if deep.shape[2] == 4:
        mode = 'RGBA' if header is None else _plain_mode(header)
        if mode == 'RGBA' and (deep[..., :1] == deep[..., 1:3]).all():
            mode = 'LA'  # Pillow reports a grey 16-bit PNG with alpha as RGBA
        return deep[..., {'L': [0], 'LA': [0, 3], 'RGB': [2, 1, 0], 'RGBA': [2, 1, 0, 3]}[mode]]
    return deep[..., ::-1]


def _picture(array: np.ndarray, header: Image.Image | None) -> Picture:
    channels = 1 if array.ndim == 2 else array.shape[2]
    scaled = array.reshape(*array.shape[:2], channels).astype(np.float32)
    scaled /= FULL[array.dtype.name]
    grey = channels < 3
    alpha = np.ascontiguousarray(scaled[..., -1]) if channels in (2, 4) else None
    pixels = np.repeat(scaled[..., :1], 3, 2) if grey else np.ascontiguousarray(scaled[..., :3])
    # A profile of a colour space other than RGB or grey no longer matches the pixels.
    profile = None if header is None or header.mode in OTHER_SPACES else header.info.get('icc_profile')
    depth = 'float32' if array.dtype.kind == 'f' else array.dtype.name
    return Picture(pixels, alpha, grey, depth, profile)


def output_suffix(suffix: str) -> str:
    """Returns the suffix under which an image of type `suffix` is written: `suffix` if it is writable, else `.png`."""
    return suffix if suffix.lower() in WRITABLE else '.png'


def write_picture(path: str | os.PathLike, pixels: np.ndarray, like: Picture) -> None:
    """Writes an image atomically with the colour mode, alpha, bit depth and profile of another image.

    A grey file contains the luma of the channels. Alpha is resized to the size of the image. Properties that the file
    type does not support are dropped: alpha in JPEG, more than 8 bits in most types, and the colour profile of a file
    with more than 8 bits.

    Args:
        path: the file. Its suffix, one of `WRITABLE`, determines the type.
        pixels: (H, W, 3) float32 RGB in [0, 1].
        like: the picture whose alpha, grey, depth and profile are used.

    Raises:
        DataError: the suffix is not in `WRITABLE`, or the file type does not support an image of this size.
        OSError: the disk is full or the path is not writable.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise DataError(f'{path}: {suffix or "a file without a suffix"} cannot be written. Use {", ".join(WRITABLE)}.')
    fitting = [depth for depth, suffixes in DEEP.items() if suffix in suffixes and like.depth != 'uint8']
    depth = like.depth if like.depth in fitting else (fitting or ['uint8'])[-1]
    alpha = None if suffix in OPAQUE else like.alpha
    try:
        array = _stored(pixels, like.grey, alpha, depth)
        encode = _encoded_8_bits if depth == 'uint8' else _encoded_deep
        data = encode(array, suffix, like.profile)
    except (OSError, ValueError, cv2.error) as error:
        size = f'{pixels.shape[1]}x{pixels.shape[0]}'
        raise DataError(f'{path}: an image of {size} pixels cannot be written as {suffix} ({error}).') from error
    write_bytes(path, data)


def _stored(pixels: np.ndarray, grey: bool, alpha: np.ndarray | None, depth: str) -> np.ndarray:
    """Returns (H, W, 1 to 4) pixels in the pixel type of the file.

    The array is filled band by band, because float copies of the whole image are large.
    """
    height, width = pixels.shape[:2]
    if alpha is not None and alpha.shape != (height, width):
        alpha = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_LINEAR)
    colors = 1 if grey else 3
    array = np.empty((height, width, colors + (alpha is not None)), depth)
    for top in range(0, height, BAND):
        rows = slice(top, top + BAND)
        band = cv2.cvtColor(pixels[rows], cv2.COLOR_RGB2GRAY)[..., None] if grey else pixels[rows]
        array[rows, :, :colors] = _quantised(band, depth)
        if alpha is not None:
            array[rows, :, colors] = _quantised(alpha[rows], depth)
    return array


def _quantised(values: np.ndarray, depth: str) -> np.ndarray:
    return values if depth == 'float32' else np.rint(values * FULL[depth])


def _encoded_8_bits(array: np.ndarray, suffix: str, profile: bytes | None) -> bytes:
    buffer = io.BytesIO()
    options = WRITABLE[suffix] | ({'icc_profile': profile} if profile else {})
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    image.save(buffer, Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def _encoded_deep(array: np.ndarray, suffix: str, _profile: bytes | None) -> bytes:
    if array.shape[2] == 2:  # OpenCV cannot write grey with alpha
        array = array[..., [0, 0, 0, 1]]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(array[..., order]))
    if not done:
        raise ValueError('OpenCV cannot encode the image')
    return data.tobytes()
