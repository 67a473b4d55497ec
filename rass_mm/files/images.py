"""Image files of any kind to RGB in [0, 1] and back in kind: grey stays grey, alpha and 16 bits are kept.

Pillow says what a file means (alpha, palette, orientation, whether it is whole) and gives 8-bit pixels. OpenCV gives
the pixels of more than 8 bits, which Pillow cuts in colour images, and of the types Pillow does not know.
"""

import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from rass_mm.errors import DataError
from rass_mm.files.atomic import write_bytes
from rass_mm.files.integrity import UnknownImageError, decoded

logger = logging.getLogger(__name__)

READABLE = (
    *('.avif', '.bmp', '.dib', '.exr', '.gif', '.hdr', '.ico', '.jp2', '.jpe', '.jpeg', '.jpg', '.pbm', '.pcx', '.pfm'),
    *('.pgm', '.png', '.pnm', '.ppm', '.psd', '.ras', '.sr', '.tga', '.tif', '.tiff', '.webp'),
)
"""What counts as an image in a folder; a file given by name may have any suffix."""
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
"""Suffixes that are kept -> Pillow's options; everything else becomes PNG."""
DEEP = {'float32': ('.tif', '.tiff'), 'uint16': ('.pgm', '.png', '.ppm', '.tif', '.tiff')}
OPAQUE = ('.bmp', '.jpeg', '.jpg', '.pgm', '.ppm')
FULL = {'uint8': 255, 'uint16': 65535, 'float32': 1, 'float64': 1}
"""Pixel types and their white."""
BAND = 256
GREY_MODES = ('1', 'L', 'LA', 'La')
ANIMATED = ('AVIF', 'GIF', 'PNG', 'TIFF', 'WEBP')
OTHER_SPACES = ('CMYK', 'YCbCr', 'LAB', 'HSV')


@dataclass(frozen=True)
class Picture:
    """An image and what is needed to write another one in its kind.

    Args:
        pixels: (H, W, 3) float32 RGB in [0, 1]; the channels of a grey image are equal.
        alpha: (H, W) float32 in [0, 1], or None.
        grey: whether the file has one colour channel.
        depth: 'uint8', 'uint16' or 'float32', the pixel type of the file.
        profile: the file's ICC colour profile, or None.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    grey: bool
    depth: str
    profile: bytes | None


def read_picture(path: str | os.PathLike) -> Picture:
    """Reads an image file, turned as its EXIF orientation says; of an animation the first frame.

    Raises:
        DataError: the file is absent, no image, truncated, damaged, or of a pixel type without a known range.
    """
    try:
        data = Path(path).read_bytes()
        header = _header(data)
        array = _decoded(data, header)
        if header is not None and header.format in ANIMATED and getattr(header, 'n_frames', 1) > 1:
            logger.warning('%s has %d frames; only the first is restored', path, header.n_frames)
    except Exception as error:  # damaged bytes make Pillow's decoders raise nearly anything, TypeError for one
        raise DataError(f'{path}: the image cannot be read ({error}). Copy it again, or leave it out.') from error
    return _picture(array, header)


def _header(data: bytes) -> Image.Image | None:
    """The image in Pillow, decoded to its end; None if Pillow does not know the type."""
    try:
        return decoded(data)
    except UnknownImageError:
        return None


def _decoded(data: bytes, header: Image.Image | None) -> np.ndarray:
    """(H, W) or (H, W, 2 to 4), upright: grey, grey and alpha, RGB, or RGB and alpha, in the file's pixel type."""
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if header is None and deep is None:
        raise DataError('not an image of a known type')
    if header is None or (deep is not None and deep.dtype != np.uint8):
        array = _like_header(deep, header)
    elif header.mode.startswith(('I', 'F')):
        array = np.asarray(header)
    else:
        array = np.asarray(header.convert(_plain_mode(header)))
    if array.dtype.name not in FULL:
        raise DataError(f'pixels of type {array.dtype} have no known range; save it with 8 or 16 bits')
    if array.dtype.kind == 'f' and not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
        raise DataError(f'its values go from {array.min():g} to {array.max():g}; 0 to 1 is needed')
    # Both decoders turn a TIFF themselves, and nothing else.
    turn = 1 if header is None or header.format == 'TIFF' else header.getexif().get(0x0112, 1)
    return _turned(array, turn)


def _plain_mode(header: Image.Image) -> str:
    return ('L' if header.mode in GREY_MODES else 'RGB') + ('A' if header.has_transparency_data else '')


def _like_header(deep: np.ndarray, header: Image.Image | None) -> np.ndarray:
    """OpenCV's pixels in RGB order, without the channels that it adds to what the file has."""
    if deep.ndim == 2:
        return deep
    if deep.shape[2] == 4:
        mode = 'RGBA' if header is None else _plain_mode(header)
        if mode == 'RGBA' and (deep[..., :1] == deep[..., 1:3]).all():
            mode = 'LA'  # what Pillow takes for colour where a grey PNG with alpha has 16 bits
        return deep[..., {'L': [0], 'LA': [0, 3], 'RGB': [2, 1, 0], 'RGBA': [2, 1, 0, 3]}[mode]]
    return deep[..., ::-1]


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """The array upright; `orientation` is the EXIF value, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _picture(array: np.ndarray, header: Image.Image | None) -> Picture:
    channels = 1 if array.ndim == 2 else array.shape[2]
    scaled = array.reshape(*array.shape[:2], channels).astype(np.float32)
    scaled /= FULL[array.dtype.name]
    grey = channels < 3
    alpha = np.ascontiguousarray(scaled[..., -1]) if channels in (2, 4) else None
    pixels = np.repeat(scaled[..., :1], 3, 2) if grey else np.ascontiguousarray(scaled[..., :3])
    # A profile of another colour space than RGB or grey does not fit the pixels any more.
    profile = None if header is None or header.mode in OTHER_SPACES else header.info.get('icc_profile')
    depth = 'float32' if array.dtype.kind == 'f' else array.dtype.name
    return Picture(pixels, alpha, grey, depth, profile)


def output_suffix(suffix: str) -> str:
    """The suffix under which an image of type `suffix` is written: its own, or `.png` if that is not written."""
    return suffix if suffix.lower() in WRITABLE else '.png'


def write_picture(path: str | os.PathLike, pixels: np.ndarray, like: Picture) -> None:
    """Writes an image in the kind of another one, whole or not at all.

    Grey is the luma of the channels; alpha is enlarged to the image's size. What the file type cannot hold is left out:
    alpha in JPEG, more than 8 bits in most types, the colour profile of a file with more than 8 bits.

    Args:
        path: the file; its suffix, one of `WRITABLE`, decides the type.
        pixels: (H, W, 3) float32 RGB in [0, 1].
        like: the picture whose alpha, grey, depth and profile are taken.

    Raises:
        DataError: the file type cannot hold an image of this size.
        OSError: there is no room or no right to write.
    """
    suffix = Path(path).suffix.lower()
    fitting = [depth for depth, suffixes in DEEP.items() if suffix in suffixes and like.depth != 'uint8']
    depth = like.depth if like.depth in fitting else (fitting or ['uint8'])[-1]
    alpha = None if suffix in OPAQUE else like.alpha
    try:
        array = _stored(pixels, like.grey, alpha, depth)
        encode = _encoded_8_bits if depth == 'uint8' else _encoded_deep
        data = encode(array, suffix, like.profile)
    except (OSError, ValueError, cv2.error) as error:
        size = f'{pixels.shape[1]}x{pixels.shape[0]}'
        raise DataError(f'{path}: {size} pixels cannot be written as {suffix} ({error}).') from error
    write_bytes(path, data)


def _stored(pixels: np.ndarray, grey: bool, alpha: np.ndarray | None, depth: str) -> np.ndarray:
    """(H, W, 1 to 4) in the file's pixel type; filled in bands, because whole float copies are large."""
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
    if array.shape[2] == 2:  # OpenCV writes no grey with alpha
        array = array[..., [0, 0, 0, 1]]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(array[..., order]))
    if not done:
        raise ValueError('OpenCV cannot encode it')
    return data.tobytes()
