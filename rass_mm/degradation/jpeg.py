"""JPEG compression in memory, with a choice of how the decoder enlarges the halved chroma planes."""

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
        chroma: 'smooth' interpolates the chroma planes, which is libjpeg's default; 'repeat' repeats their pixels.

    Returns:
        A new (H, W, 3) uint8 BGR image.
    """
    if chroma == 'repeat':
        return _compress_repeated(image, quality)
    return cv2.imdecode(_encoded(image, quality), cv2.IMREAD_COLOR)


def _encoded(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]


def _compress_repeated(image: np.ndarray, quality: int) -> np.ndarray:
    """Implements `compress` for `chroma='repeat'`.

    Neither OpenCV nor Pillow can disable libjpeg's smoothing. However, a decoder at half size does not enlarge chroma
    at all. The chroma planes are therefore decoded at half size, and luma is decoded separately without chroma.
    """
    height, width = image.shape[:2]
    # Encoders repeat the last row and column up to full blocks in any case. With even sides, half the size is exact.
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    data = _encoded(even, quality).tobytes()
    half = (even.shape[1] // 2, even.shape[0] // 2)
    luma, planes = _drafted(data, 'L', half[0] * 2, half[1] * 2), _drafted(data, 'YCbCr', *half)
    chroma = (plane.resize(luma.size, Image.Resampling.NEAREST) for plane in planes.split()[1:])
    decoded = np.asarray(Image.merge('YCbCr', [luma, *chroma]).convert('RGB'))
    return np.ascontiguousarray(decoded[:height, :width, ::-1])


def _drafted(data: bytes, mode: str, width: int, height: int) -> Image.Image:
    """Returns the direct output of the JPEG decoder in the given mode and size, without later conversion."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft(mode, (width, height))
        image.load()
        return image.copy()
