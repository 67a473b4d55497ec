"""Enlargement of low-quality images before restoration, with Pillow, as in the published restorers.

Pillow's bicubic kernel has a = -0.5 and OpenCV's has a = -0.75. On 20 photos enlarged four times, the results differ by
up to 10 grey levels. 8-bit images are resized in 8 bits, because Pillow rounds and clips them after each direction.
Resizing in floating point would change the results by up to 4 grey levels for the photos and by up to 18 for noise.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from rass_mm.errors import DataError

OSEDIFF_SHORT_SIDE, OSEDIFF_MULTIPLE = 512, 8
"""OSEDiff's minimum short side of an enlarged image in pixels, and the number by which its sides are divisible."""
MOST_MEGAPIXELS, MOST_WHOLE_MEGAPIXELS = 400, 8
"""Maximum size of an enlarged image in megapixels, in general and for OSEDiff's scheme.

An image of 400 megapixels takes about 10 GB together with its source. OSEDiff's scheme restores images as a whole.
"""


def resized(image: np.ndarray, size: tuple[int, int], method: Resampling = Resampling.BICUBIC) -> np.ndarray:
    """Resizes an image with Pillow's antialiased filters, one channel at a time.

    Args:
        image: (H, W) or (H, W, C), uint8, or float32 in [0, 1].
        size: height and width of the result.
        method: one of Pillow's filters.

    Returns:
        The resized image in the same type and range. Floating-point values are clipped once, at the end, and never
        rounded.

    Raises:
        DataError: the result would have more than `MOST_MEGAPIXELS`.
    """
    check_megapixels(size, MOST_MEGAPIXELS, 'Set a smaller --upscale.')
    result = np.empty((*size, *image.shape[2:]), image.dtype)
    planes, larger = (array.reshape(*array.shape[:2], -1) for array in (image, result))
    for channel in range(planes.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(planes[..., channel]))
        larger[..., channel] = np.asarray(plane.resize(size[::-1], method))
    return result if image.dtype == np.uint8 else np.clip(result, 0, 1, out=result)


def enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    """Enlarges an image bicubically, see `resized`. The sides are rounded. For factor 1, returns the image itself."""
    size = tuple(round(side * factor) for side in image.shape[:2])
    return image if size == image.shape[:2] else resized(image, size)


def osediff_sized(image: np.ndarray, factor: float) -> np.ndarray:
    """Enlarges an image with the three resizes of OSEDiff's script, see `resized`.

    First, an image with a short side of less than 512 / `factor` pixels is enlarged to that size. Next, every image is
    enlarged by `factor`. Finally, the sides are reduced to multiples of 8 with a Lanczos filter rather than a crop.

    Raises:
        DataError: the result would have more than `MOST_WHOLE_MEGAPIXELS`.
    """
    shortest, sides = OSEDIFF_SHORT_SIDE // factor, image.shape[:2]
    scale = max(shortest / min(sides), 1)
    whole = [scale * side * factor for side in sides]
    check_megapixels(whole, MOST_WHOLE_MEGAPIXELS, 'Use --scheme windows for large images or set a smaller --upscale.')
    if scale > 1:
        image = resized(image, tuple(int(scale * side) for side in sides))
    image = enlarged(image, factor)
    size = tuple(side - side % OSEDIFF_MULTIPLE for side in image.shape[:2])
    return image if size == image.shape[:2] else resized(image, size, Resampling.LANCZOS)


def check_megapixels(size: Sequence[float], most: float, remedy: str) -> None:
    """Raises a DataError if an image of height and width `size` would exceed `most` megapixels."""
    height, width = size
    if height * width > most * 1e6:
        raise DataError(
            f'The enlarged image would have {width:.0f}x{height:.0f} pixels, more than {most} megapixels. {remedy}'
        )
