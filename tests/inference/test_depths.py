"""A restorer that changes nothing keeps the pixels, the mode and the depth of every kind of image file."""

import cv2
import numpy as np
import pytest
from PIL import Image

from rass_mm.errors import DataError
from rass_mm.inference.folder import restore_files
from rass_mm.inference.photos import as_bgr, as_picture
from rass_mm.inference.restore import RestoreOptions


class Unchanged:
    """Restorer that returns its input."""

    size_multiple = 8

    def __call__(self, images):
        return images


def restored(path, out):
    restore_files(path, out, Unchanged, RestoreOptions(window=32, overlap=8))
    return out / path.name


def ramp(kind, most):
    return np.linspace(0, most, 40 * 56).reshape(40, 56).astype(kind)


def test_a_png_of_one_bit_keeps_black_and_white(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (40, 56)).astype(bool)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    assert Image.open(tmp_path / 'a.png').mode == '1'
    written = Image.open(restored(tmp_path / 'a.png', tmp_path / 'out'))
    assert written.mode == 'L'
    assert (np.asarray(written) == pixels * 255).all()


def test_a_grey_png_of_16_bits_keeps_its_bits(tmp_path):
    pixels = ramp(np.uint16, 65535)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    written = cv2.imread(str(restored(tmp_path / 'a.png', tmp_path / 'out')), cv2.IMREAD_UNCHANGED)
    assert written.dtype == np.uint16 and written.ndim == 2
    assert np.abs(written.astype(int) - pixels).max() <= 1


@pytest.mark.parametrize('channels', [1, 3])
def test_a_tiff_of_floats_keeps_its_values(tmp_path, channels):
    grey = ramp(np.float32, 1)
    pixels = grey if channels == 1 else np.dstack([grey, grey[::-1], grey[:, ::-1]])
    cv2.imwrite(str(tmp_path / 'a.tif'), pixels)
    written = cv2.imread(str(restored(tmp_path / 'a.tif', tmp_path / 'out')), cv2.IMREAD_UNCHANGED)
    assert written.dtype == np.float32 and written.shape == pixels.shape
    np.testing.assert_allclose(written, pixels, atol=1e-6)


@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA', 'LA'])
def test_a_png_of_8_bits_keeps_its_pixels_and_alpha(tmp_path, mode):
    bands = np.random.default_rng(1).integers(0, 256, (40, 56, len(mode))).astype(np.uint8)
    Image.fromarray(bands.squeeze(), mode).save(tmp_path / 'a.png')
    written = Image.open(restored(tmp_path / 'a.png', tmp_path / 'out'))
    assert written.mode == mode
    assert (np.asarray(written) == bands.squeeze()).all()


EXIF = Image.Exif()
EXIF[0x0112] = 6
DEEP = {
    'png of 16 bits': ('a.png', lambda path: Image.fromarray(ramp(np.uint16, 65535)).save(path, exif=EXIF)),
    'tiff of 16 bits': ('a.tif', lambda path: Image.fromarray(ramp(np.uint16, 65535)).save(path)),
    'pgm of 16 bits': ('a.pgm', lambda path: cv2.imwrite(str(path), ramp(np.uint16, 65535))),
    'tiff of floats': ('a.tif', lambda path: Image.fromarray(ramp(np.float32, 1)).save(path)),
    'png of 8 bits': ('a.png', lambda path: Image.fromarray(ramp(np.uint8, 255)).save(path)),
}


@pytest.mark.parametrize('kind', DEEP)
def test_a_grey_pillow_image_is_read_like_its_file_and_its_array(tmp_path, kind):
    name, write = DEEP[kind]
    write(tmp_path / name)
    image = Image.open(tmp_path / name)
    found, read = as_picture(image), as_picture(tmp_path / name)
    np.testing.assert_array_equal(found.pixels, read.pixels)
    assert (found.grey, found.depth) == (read.grey, read.depth) == (True, read.depth)
    assert len(np.unique(found.pixels)) > 200  # not clipped
    assert np.abs(as_bgr(image).astype(int) - as_bgr(tmp_path / name)).max() <= 1  # OpenCV cuts off the low byte
    array = np.asarray(image).astype(read.depth)  # Pillow reads a PGM of 16 bits as int32
    array = np.rot90(array, -1) if kind == 'png of 16 bits' else array
    np.testing.assert_array_equal(as_bgr(array), as_bgr(image))


@pytest.mark.parametrize(
    ('array', 'said'),
    [
        (ramp(np.int32, 255), 'mode I and values from 0 to 255'),
        (ramp(np.float32, 255), r'ranges from 0 to 255, but floating-point values must be in \[0, 1\]'),
        (ramp(np.float32, np.nan), r'must be in \[0, 1\]'),
    ],
)
def test_pillow_images_without_a_known_range_are_refused(array, said):
    for read in (as_bgr, as_picture):
        with pytest.raises(DataError, match=said):
            read(Image.fromarray(array))
