"""Enlargement, compared with Pillow and with the bicubic formula in float64."""

import numpy as np
import pytest
from PIL import Image

from rass_mm.errors import DataError
from rass_mm.files.resizing import enlarged, osediff_sized, resized


def levels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def bicubic(size, larger):
    """Returns the (larger, size) interpolation matrix along one side, for the cubic kernel with a = -0.5."""
    positions = (np.arange(larger) + 0.5) * size / larger - 0.5
    distance = np.abs(positions[:, None] - np.arange(size))
    near, far = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize('factor', [4, 2, 1.5])
@pytest.mark.parametrize('size', [(37, 50), (128, 128), (1, 9), (1, 1)])
def test_8_bit_results_equal_pillow(size, factor):
    image = levels(*size)
    expected = np.asarray(Image.fromarray(image).resize([round(side * factor) for side in size[::-1]], Image.BICUBIC))
    assert np.array_equal(enlarged(image, factor), expected)
    assert np.array_equal(enlarged(image[..., 0], factor), expected[..., 0])


@pytest.mark.parametrize('factor', [4, 2, 1.5])
@pytest.mark.parametrize('size', [(37, 50), (1, 9)])
def test_floating_point_matches_the_formula(size, factor):
    image = (levels(*size) / 255).astype(np.float32)
    rows, columns = (bicubic(side, round(side * factor)) for side in size)
    expected = np.einsum('ya,abc,xb->yxc', rows, image.astype(np.float64), columns)
    result = enlarged(image, factor)
    assert result.dtype == np.float32 and expected.max() > 1
    np.testing.assert_allclose(result, expected.clip(0, 1), atol=1e-6)


def test_an_image_that_keeps_its_size_is_not_copied():
    image = levels(64, 72)
    assert enlarged(image, 1) is image and enlarged(image, 1.001) is image
    large = levels(512, 520)
    assert osediff_sized(large, 1) is large


@pytest.mark.parametrize(
    ('size', 'factor', 'expected'),
    [
        ((128, 128), 4, (512, 512)),
        ((37, 50), 4, (512, 688)),  # short side 37 to 128, then enlarged four times, then 692 to 688
        ((200, 131), 4, (800, 520)),
        ((256, 300), 2, (512, 600)),
        ((515, 700), 1, (512, 696)),
    ],
)
def test_osediff_sizes_result_from_three_resizes(size, factor, expected):
    image = Image.fromarray(levels(*size))
    short = min(image.size)
    if short < 512 // factor:
        image = image.resize([int(512 // factor / short * side) for side in image.size])
    image = image.resize([factor * side for side in image.size])
    image = image.resize([side // 8 * 8 for side in image.size], Image.LANCZOS)
    result = osediff_sized(levels(*size), factor)
    assert result.shape[:2] == expected and np.array_equal(result, np.asarray(image))


def test_one_function_serves_any_number_of_channels():
    image = np.concatenate([levels(9, 7), levels(9, 7, 1)], 2)
    larger = resized(image, (18, 21))
    assert np.array_equal(larger[..., 3:], resized(levels(9, 7, 1), (18, 21))) and larger.shape == (18, 21, 6)


def test_too_large_results_are_refused_before_they_are_computed():
    tiny = np.zeros((1, 70, 3), np.uint8)
    with pytest.raises(DataError, match='35840x512 pixels, more than 8 megapixels. Use --scheme windows'):
        osediff_sized(tiny, 4)
    with pytest.raises(DataError, match='more than 400 megapixels. Set a smaller --upscale'):
        enlarged(tiny, 1e9)
    assert osediff_sized(np.zeros((128, 256, 3), np.uint8), 4).shape == (512, 1024, 3)
