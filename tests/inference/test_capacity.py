"""Sizes of images in messages."""

import pytest

from rass_mm.inference.capacity import fitting, pixel_count


@pytest.mark.parametrize(
    ('pixels', 'text'), [(100, '100 pixels'), (82_944.4, '82,944 pixels'), (89_478_485, '89.5 megapixels')]
)
def test_a_number_of_pixels_has_enough_digits(pixels, text):
    assert pixel_count(pixels) == text


def test_a_small_limit_is_not_shown_as_0():
    assert fitting(1, 100) == 'images of up to 100 pixels (--max-pixels)'
