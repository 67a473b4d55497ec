"""Reads images for prediction from files, arrays and Pillow images. Files and Pillow images are turned upright.

Image files are decoded for a segmentor as in mmseg, so that all entry points produce the same label maps.
"""

import io
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from rass_mm.errors import DataError
from rass_mm.files.images import GREY_MODES, Picture, needs_scaling, picture_of, read_picture, to_bgr, warn_of_frames
from rass_mm.files.integrity import (
    MAX_PIXELS,
    TooManyPixelsError,
    check_complete,
    check_pixels,
    without_pillow_limit,
)
from rass_mm.files.optional import import_optional
from rass_mm.files.orientation import exif_orientation, turned
from rass_mm.files.regular import check_regular
from rass_mm_cli.extras import SEGMENTATION

Photo = str | os.PathLike | np.ndarray | Image.Image
"""An image file, an array (H, W) grey or (H, W, 3) RGB, or a Pillow image."""
TURNED_BY_MMCV = ('JPEG', 'MPO', 'PNG', 'TIFF', 'WEBP')
DEEP_MODES = ('I', 'F')
"""First letters of Pillow's grey modes with more than 8 bits, which Pillow clips to 0..255 if they are converted."""
SCALED = ('PNG', 'PPM')
"""Formats whose 16-bit files Pillow opens in mode I. In other images of this mode, white has no known value."""
RANGE = {'uint8': 255, 'uint16': 65535, 'float32': 1, 'float64': 1}


def read_bgr(path: str | os.PathLike, max_pixels: int = MAX_PIXELS, backend: str | None = 'cv2') -> np.ndarray:
    """Reads an image file as (H, W, 3) uint8 BGR as mmcv does, turned upright by its EXIF orientation.

    Values of 16 bits are reduced to 8 bits, and alpha is dropped. A file that mmcv cannot decode, e.g. with
    floating-point values, is read with `read_picture`.

    Args:
        path: the file.
        max_pixels: largest number of pixels, see `read_picture`.
        backend: mmcv's image decoder: 'cv2', or one that needs mmcv, such as 'pillow'.

    Raises:
        DataError: the file is missing, too large, truncated, damaged, or not an image.
        InstallationError: the decoder needs mmcv, which is not installed.
    """
    check_regular(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f'{path}: the image cannot be read ({error.strerror}).') from error
    try:
        check_pixels(data, max_pixels)
    except TooManyPixelsError as error:
        raise DataError(f'{path}: {error}') from None
    except DataError as error:
        raise DataError(f'{path}: the image cannot be read ({error}). Copy it again or remove it.') from None
    check_complete(data, os.fspath(path))
    if needs_scaling(data):
        return to_bgr(picture_of(data, path, max_pixels).pixels)
    image, header, decode = None, _header(data), _decoder(backend)
    if header.format in TURNED_BY_MMCV or exif_orientation(header) == 1:
        with suppress(Exception):  # OpenCV and Pillow raise almost any error; read_picture names the reason
            image = decode(data)
    if image is None or image.dtype != np.uint8 or image.ndim != 3:
        return to_bgr(picture_of(data, path, max_pixels).pixels)
    warn_of_frames(path, header)
    return image


def _decoder(backend: str | None) -> Callable[[bytes], np.ndarray | None]:
    """Returns the function that decodes an image file as (H, W, 3) BGR. For 'cv2', it does what mmcv does."""
    if backend == 'cv2':
        return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    mmcv = import_optional('mmcv', f'The image decoder {backend!r}', SEGMENTATION)
    return partial(mmcv.imfrombytes, flag='color', backend=backend)


def _header(data: bytes) -> Image.Image:
    """Opens an image with Pillow without decoding it."""
    with without_pillow_limit():
        return Image.open(io.BytesIO(data))


def as_bgr(image: Photo, max_pixels: int = MAX_PIXELS, backend: str | None = 'cv2') -> np.ndarray:
    """Returns a photo as (H, W, 3) uint8 BGR.

    Raises:
        DataError: the file cannot be read, or the array is not an image.
    """
    if isinstance(image, str | os.PathLike):
        return read_bgr(image, max_pixels, backend)
    pixels = _rgb(image)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels[..., ::-1])
    return to_bgr(pixels.astype(np.float32) / RANGE[pixels.dtype.name])


def as_picture(image: Photo, max_pixels: int = MAX_PIXELS) -> Picture:
    """Returns a photo as a `Picture`. For an array or a Pillow image, `alpha` and `profile` are None.

    Raises:
        DataError: the file cannot be read, or the array is not an image.
    """
    if isinstance(image, str | os.PathLike):
        return read_picture(image, max_pixels)
    pixels = _rgb(image)
    depth = pixels.dtype.name if pixels.dtype.kind == 'u' else 'float32'
    grey = image.ndim == 2 if isinstance(image, np.ndarray) else _is_grey(image)
    return Picture(pixels.astype(np.float32) / RANGE[pixels.dtype.name], None, grey, depth, None)


def _rgb(image: np.ndarray | Image.Image) -> np.ndarray:
    """Returns the pixels as (H, W, 3) RGB in the dtype of the image."""
    if isinstance(image, Image.Image):
        if not image.mode.startswith(DEEP_MODES):
            return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
        image = _deep(image)
    if not isinstance(image, np.ndarray):
        raise DataError(
            f'A {type(image).__name__} is not an image. Pass a path, a NumPy array, a Pillow image, or a list of these.'
        )
    pixels = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(f'The array has the shape {image.shape}. Pass (H, W, 3) RGB or (H, W) grey.')
    if pixels.dtype.name not in RANGE:
        raise DataError(f'The array has the type {image.dtype}. Pass uint8, uint16, or float32 in [0, 1].')
    if pixels.dtype.kind == 'f' and not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN is neither
        raise DataError(
            f'The array ranges from {pixels.min():g} to {pixels.max():g}, but floating-point values must be in [0, 1]. '
            'If your values are in 0..255, convert them to uint8.'
        )
    return pixels


def _is_grey(image: Image.Image) -> bool:
    return image.mode in GREY_MODES or image.mode.startswith(DEEP_MODES)


def _deep(image: Image.Image) -> np.ndarray:
    """Returns the upright pixels (H, W) of a Pillow image of mode I or F, or of a 16-bit mode."""
    array = np.asarray(image)  # which decodes the image and turns a TIFF
    if image.mode == 'I' and image.format in SCALED:
        array = array.astype(np.uint16)
    elif image.mode == 'I':
        raise DataError(
            f'The Pillow image has the mode I and values from {array.min()} to {array.max()}, whose range is not '
            "known. Pass np.asarray(image).astype('uint16') for 16 bits (white is 65535), or 'uint8' for 8 bits."
        )
    array = array.astype(array.dtype.newbyteorder('='), copy=False)
    return turned(array, exif_orientation(image))
