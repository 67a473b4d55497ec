"""Both ways to enlarge JPEG chroma, compared with the formula of the smoothing and with a decoder at half size."""

import cv2
import numpy as np
import pytest

from rass_mm.degradation import applying, drawing, jpeg, recipe
from rass_mm.errors import ConfigError


@pytest.fixture
def picture():
    """Provides soft colours that are far from black and white, where clipping would change the chroma."""
    coarse = np.random.default_rng(3).integers(90, 166, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)


def planes(image):
    """Computes Y, Cr and Cb by the JFIF formula."""
    blue, green, red = np.moveaxis(image.astype(np.float64), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma, (red - luma) / 1.402 + 128, (blue - luma) / 1.772 + 128


def smoothed(plane):
    """Applies libjpeg's triangle filter to a plane of repeated 2x2 pixels: 3/4 of the nearer and 1/4 of the farther."""
    for axis in (0, 1):
        half = plane.take(range(0, plane.shape[axis], 2), axis)
        last = half.shape[axis] - 1
        before, after = (half.take(np.clip(np.arange(last + 1) + step, 0, last), axis) for step in (-1, 1))
        pair = np.stack([0.75 * half + 0.25 * before, 0.75 * half + 0.25 * after], axis + 1)
        plane = pair.reshape(*plane.shape)
    return plane


def test_smooth_chroma_is_the_smoothed_repeated_chroma(picture):
    smooth, repeated = (planes(jpeg.compress(picture, 60, chroma)) for chroma in jpeg.CHROMA)
    assert np.abs(smooth[0] - repeated[0]).max() < 1.5  # the same luma, except for rounding to RGB
    for one, other in zip(smooth[1:], repeated[1:], strict=True):
        assert np.abs(other - other[::2, ::2].repeat(2, 0).repeat(2, 1)).max() < 1.5
        assert np.abs(one - smoothed(other)).max() < 2.5
        assert np.abs(one - other).max() > 4  # ensures that the comparison is meaningful


def test_repeated_chroma_equals_a_decoder_at_half_size(picture):
    encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    half = planes(cv2.imdecode(encoded, cv2.IMREAD_REDUCED_COLOR_2))
    for one, other in zip(half[1:], planes(jpeg.compress(picture, 60, 'repeat'))[1:], strict=True):
        assert np.abs(one.repeat(2, 0).repeat(2, 1) - other).max() < 2


def test_smooth_equals_opencv_and_is_the_default(picture):
    encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    assert np.array_equal(jpeg.compress(picture, 60), cv2.imdecode(encoded, cv2.IMREAD_COLOR))


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (1, 7), (5, 1), (2, 2), (15, 33)])
def test_any_size_is_compressed(picture, height, width):
    image = picture[:height, :width]
    repeated = jpeg.compress(image, 95, 'repeat')
    assert repeated.shape == image.shape and repeated.dtype == np.uint8
    assert np.abs(repeated.astype(int) - image).mean() < 6


def test_the_recipe_records_the_chroma_mode_and_apply_uses_it(picture):
    plain, changed = recipe.OSEDIFF, recipe.override(recipe.OSEDIFF, {'jpeg_chroma': 'repeat'})
    differ = 0
    for seed in range(5):
        one, other = (drawing.draw(settings, np.random.default_rng(seed), 48, 64) for settings in (plain, changed))
        differ += not np.array_equal(applying.apply(picture, one), applying.apply(picture, other))
        chroma = [step.pop('chroma') for step in other['steps'] if step['op'] == 'jpeg']
        assert chroma == ['repeat', 'repeat'] and one == other
    assert differ == 5
    with pytest.raises(ConfigError, match='jpeg_chroma is soft, but it must be one of smooth, repeat'):
        recipe.override(recipe.OSEDIFF, {'jpeg_chroma': 'soft'})
