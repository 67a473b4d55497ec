"""JPEG compression in memory, with the decoder's choice of how the halved chroma planes are enlarged."""

import io

import cv2
import numpy as np
from PIL import Image

CHROMA = ('smooth', 'repeat')


def compress(image: np.ndarray, quality: int, chroma: str = 'smooth') -> np.ndarray:
    """Encodes an image as JPEG with 4:2:0 chroma and decodes it.

    Args:
        image: (H, W, 3) uint8, BGR.
        quality: JPEG quality, 1 to 100.
        chroma: 'smooth' interpolates the chroma planes, as libjpeg does by default; 'repeat' repeats their pixels.

    Returns:
        A new (H, W, 3) uint8 BGR image.
    """
    if chroma == 'repeat':
        return _compress_repeated(image, quality)
    return cv2.imdecode(_encoded(image, quality), cv2.IMREAD_COLOR)


def _encoded(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]


def _compress_repeated(image: np.ndarray, quality: int) -> np.ndarray:
    """The 'repeat' of `compress`.

    No library lets its user switch libjpeg's smoothing off. A decoder at half size does not enlarge chroma at all, so
    the chroma planes come from such a one, and luma from a decoder that leaves chroma out.
    """
    height, width = image.shape[:2]
    # Encoders repeat the last row and column up to full blocks anyway; even sides make half the size exact.
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    data = _encoded(even, quality).tobytes()
    half = (even.shape[1] // 2, even.shape[0] // 2)
    luma, planes = _drafted(data, 'L', half[0] * 2, half[1] * 2), _drafted(data, 'YCbCr', *half)
    chroma = (plane.resize(luma.size, Image.Resampling.NEAREST) for plane in planes.split()[1:])
    decoded = np.asarray(Image.merge('YCbCr', [luma, *chroma]).convert('RGB'))
    return np.ascontiguousarray(decoded[:height, :width, ::-1])


def _drafted(data: bytes, mode: str, width: int, height: int) -> Image.Image:
    """An image as the JPEG decoder itself gives it in a mode and at a size, without a conversion after it."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft(mode, (width, height))
        image.load()
        return image.copy()
