"""All commands read the same types of image files, and convert floating-point values to 8 bits in the same way."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from rass_mm.datasets.check.reading import image_size
from rass_mm.datasets.loading import LoadImageStrict
from rass_mm.degradation.reading import read_image
from rass_mm.errors import DataError
from rass_mm.files.headers import size_in_header
from rass_mm.files.images import read_picture
from rass_mm.files.integrity import TooManyPixelsError, check_complete, check_pixels
from rass_mm.inference.photos import read_bgr

GREY = np.linspace(0, 1, 40 * 56, dtype=np.float32).reshape(40, 56)
COLOR = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
FILES = {'color.tif': COLOR, 'grey.tif': GREY, 'color.hdr': COLOR, 'color.pfm': COLOR, 'grey.pfm': GREY}
KNOWN_TO_PILLOW = ('grey.tif', 'grey.pfm')


def written(folder, name):
    assert cv2.imwrite(str(folder / name), FILES[name])
    return folder / name


def loaded(path, **options):
    return LoadImageStrict(**options)({'img_path': str(path)})['img']


@pytest.mark.parametrize('name', FILES)
def test_every_reader_gives_the_values_of_the_restorer(name, tmp_path):
    path = written(tmp_path, name)
    expected = np.rint(255.0 * read_picture(path).pixels[..., ::-1]).astype(np.uint8)
    given = FILES[name] if FILES[name].ndim == 3 else np.dstack([GREY] * 3)
    assert np.abs(expected - 255.0 * given).max() < 2  # Radiance has 8 bits and an exponent
    assert np.array_equal(read_bgr(path), expected)
    assert np.array_equal(loaded(path), expected)
    assert np.array_equal(read_image(path)[0], expected)
    assert image_size(str(path)) == ((56, 40), 1)


@pytest.mark.parametrize('name', FILES)
def test_every_reader_refuses_a_file_with_too_many_pixels(name, tmp_path):
    path = written(tmp_path, name)
    for read in (read_picture, read_bgr, read_image):
        with pytest.raises(DataError, match='56x40 pixels'):
            read(path, 2000)
    with pytest.raises(DataError, match='56x40 pixels'):
        loaded(path, max_pixels=2000)


@pytest.mark.parametrize('name', FILES)
def test_every_reader_refuses_half_a_file(name, tmp_path):
    path = written(tmp_path, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    for read in (read_picture, read_bgr, read_image, loaded, lambda path: image_size(str(path))):
        with pytest.raises(DataError):
            read(path)


@pytest.mark.parametrize('name', [name for name in FILES if name not in KNOWN_TO_PILLOW])
def test_sizes_in_headers(name, tmp_path):
    data = written(tmp_path, name).read_bytes()
    assert size_in_header(data) == (56, 40)
    for length in range(0, min(len(data), 200)):
        assert size_in_header(data[:length]) in (None, (56, 40))


def test_the_size_in_the_header_of_an_exr_file():
    window = struct.pack('<4i', -1, 2, 98, 51)
    head = b'\x76\x2f\x31\x01\x02\0\0\0channels\0chlist\0\x01\0\0\0\0'
    assert size_in_header(head + b'dataWindow\0box2i\0\x10\0\0\0' + window) == (100, 50)
    assert size_in_header(head) is None


def test_no_image_is_named():
    for data in (b'', b'text', zlib.compress(b'text'), b'#?RADIANCE\n\n-Y 9 +X 9\n'):
        with pytest.raises(DataError, match=r'a\.hdr: the image cannot be read \(not an image of a known type\)'):
            check_complete(data, 'a.hdr')


@pytest.mark.parametrize('head', [b'PF\n%b 1\n-1.0\n', b'#?RADIANCE\n\n-Y 1 +X %b\n'], ids=['pfm', 'hdr'])
def test_a_side_of_thousands_of_digits_is_no_size(head):
    assert size_in_header(head % (b'9' * 5000)) is None


def big_tiff(width, height):
    """The header of a BigTIFF file, which OpenCV decodes and Pillow does not identify for float RGB values."""
    tags = [(256, width), (257, height)]
    entries = b''.join(struct.pack('<HHQQ', tag, 4, 1, value) for tag, value in tags)
    return struct.pack('<2sHHHQQ', b'II', 43, 8, 0, 16, len(tags)) + entries + struct.pack('<Q', 0)


def test_sizes_of_big_tiff_and_pam_are_limited(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.pam'), np.zeros((40, 56, 3), np.uint8))
    for data in (big_tiff(56, 40), (tmp_path / 'a.pam').read_bytes()):
        assert size_in_header(data) == (56, 40)
        with pytest.raises(TooManyPixelsError, match='56x40'):
            check_pixels(data, most=1)
