"""Reading of all kinds of image files and writing in the same kind; other libraries write the inputs if they can."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from rass_mm.errors import DataError
from rass_mm.files.images import output_suffix, read_picture, write_picture

RNG = np.random.default_rng(0)


@pytest.fixture
def tifffile():
    return pytest.importorskip('tifffile')  # an independent writer, not a dependency


def noise(*shape, depth=np.uint8):
    return RNG.integers(0, np.iinfo(depth).max, shape, depth, endpoint=True)


def smooth(height, width, channels=3):
    """Returns a smooth image, which JPEG and WebP barely change."""
    return cv2.resize(noise(3, 3, channels), (width, height), interpolation=cv2.INTER_CUBIC)


def back(path, out=None):
    """Reads a file, writes it unchanged, and returns the picture and the new file."""
    picture = read_picture(path)
    out = out or path.with_name('out' + output_suffix(path.suffix))
    write_picture(out, picture.pixels, picture)
    return picture, out


@pytest.mark.parametrize('suffix', ['.png', '.bmp', '.tif', '.tiff', '.PNG'])
@pytest.mark.parametrize('size', [(31, 57), (1, 40), (40, 1), (1, 1)])
def test_colour_is_preserved_exactly(tmp_path, suffix, size):
    array, path = noise(*size, 3), tmp_path / f'image{suffix}'
    Image.fromarray(array).save(path)
    picture, out = back(path)
    assert picture.pixels.dtype == np.float32 and np.array_equal(np.rint(picture.pixels * 255), array)
    assert np.array_equal(np.asarray(Image.open(out)), array) and out.suffix == suffix


@pytest.mark.parametrize(
    ('suffix', 'mode'), [('.png', 'L'), ('.jpg', 'L'), ('.tif', 'L'), ('.bmp', 'L'), ('.pgm', 'L')]
)
def test_grey_stays_grey(tmp_path, suffix, mode):
    path = tmp_path / f'grey{suffix}'
    Image.fromarray(smooth(40, 50, 1)).save(path, quality=95)
    picture, out = back(path)
    assert picture.grey and picture.pixels.shape == (40, 50, 3) and Image.open(out).mode == mode
    assert np.abs(np.asarray(Image.open(out)).astype(int) - np.asarray(Image.open(path))).max() <= 2


def test_a_coloured_result_of_a_grey_image_is_written_as_luma(tmp_path):
    Image.fromarray(noise(8, 8)).save(tmp_path / 'grey.png')
    red = np.zeros((8, 8, 3), np.float32)
    red[..., 0] = 1
    write_picture(tmp_path / 'out.png', red, read_picture(tmp_path / 'grey.png'))
    assert np.all(np.asarray(Image.open(tmp_path / 'out.png')) == 76)


@pytest.mark.parametrize('channels', [2, 4])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_alpha_is_kept(tmp_path, channels, suffix):
    array = noise(20, 30, channels)
    Image.fromarray(array).save(tmp_path / f'alpha{suffix}')
    picture, out = back(tmp_path / f'alpha{suffix}')
    assert picture.grey == (channels == 2) and np.array_equal(np.rint(picture.alpha * 255), array[..., -1])
    assert np.array_equal(np.asarray(Image.open(out)), array)


def test_webp_with_alpha(tmp_path):
    array = smooth(40, 40, 4)
    Image.fromarray(array).save(tmp_path / 'alpha.webp', lossless=True, exact=True)
    picture, out = back(tmp_path / 'alpha.webp')
    assert np.array_equal(np.rint(picture.pixels * 255), array[..., :3])
    assert np.abs(np.asarray(Image.open(out))[..., 3].astype(int) - array[..., 3]).max() <= 2


def test_alpha_is_enlarged_with_the_image(tmp_path):
    array = noise(10, 12, 4)
    array[..., 3] = np.linspace(0, 255, 12)
    Image.fromarray(array).save(tmp_path / 'alpha.png')
    picture = read_picture(tmp_path / 'alpha.png')
    write_picture(tmp_path / 'out.png', np.zeros((20, 24, 3), np.float32), picture)
    alpha = np.asarray(Image.open(tmp_path / 'out.png'))[..., 3]
    assert alpha.shape == (20, 24) and np.all(np.diff(alpha[0].astype(int)) >= 0) and alpha.max() == 255


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('shape', [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_sixteen_bits_are_preserved_exactly(tmp_path, tifffile, suffix, shape):
    array, path = noise(*shape, depth=np.uint16), tmp_path / f'deep{suffix}'
    if suffix == '.tif':
        kind = 'rgb' if len(shape) == 3 else 'minisblack'
        tifffile.imwrite(path, array, photometric=kind, extrasamples=[2][: shape[-1] == 4])
    else:
        cv2.imwrite(str(path), swapped(array))
    picture, out = back(path)
    assert picture.depth == 'uint16' and picture.grey == (len(shape) == 2)
    colors = array[..., :3] if len(shape) == 3 else np.repeat(array[..., None], 3, 2)
    assert np.array_equal(np.rint(picture.pixels * 65535), colors)
    again = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert again.dtype == np.uint16 and np.array_equal(swapped(again), array)


def swapped(array):
    """Converts RGB to BGR or back, with or without alpha."""
    return array if array.ndim == 2 else array[..., [2, 1, 0, 3][: array.shape[2]]]


def test_sixteen_bits_become_eight_if_the_type_supports_no_more(tmp_path):
    cv2.imwrite(str(tmp_path / 'deep.png'), smooth(32, 32).astype(np.uint16) * 257)
    _, out = back(tmp_path / 'deep.png', tmp_path / 'flat.jpg')
    assert np.asarray(Image.open(out)).dtype == np.uint8


def test_sixteen_bit_grey_with_alpha_keeps_both(tmp_path):
    deep = noise(6, 7, 2, depth=np.uint16)
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in deep)
    (tmp_path / 'grey.png').write_bytes(png_bytes(7, 6, 16, 4, rows))
    picture, out = back(tmp_path / 'grey.png')
    assert picture.grey and np.array_equal(np.rint(picture.alpha * 65535), deep[..., 1])
    again = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(again[..., [0, 3]], deep)


def png_bytes(width, height, bits, kind, rows):
    """Returns the bytes of a PNG of a kind that no installed library writes."""

    def chunk(name, body):
        return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))

    head = struct.pack('>IIBBBBB', width, height, bits, kind, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')


def test_float_tiff_stays_float_and_other_ranges_are_refused(tmp_path, tifffile):
    array = RNG.random((9, 11, 3), dtype=np.float32)
    tifffile.imwrite(tmp_path / 'float.tif', array, photometric='rgb')
    picture, out = back(tmp_path / 'float.tif')
    assert picture.depth == 'float32' and np.array_equal(tifffile.imread(out), array)
    for wrong in (array * 255, array * np.nan):
        tifffile.imwrite(tmp_path / 'wrong.tif', wrong, photometric='rgb')
        with pytest.raises(DataError, match='wrong.tif.*0 to 1'):
            read_picture(tmp_path / 'wrong.tif')


@pytest.mark.parametrize('transparent', [False, True])
def test_a_palette_becomes_its_colours(tmp_path, transparent):
    image = Image.fromarray(smooth(30, 40)).quantize(16)
    image.save(tmp_path / 'palette.png', **({'transparency': 3} if transparent else {}))
    picture, out = back(tmp_path / 'palette.png')
    expected = np.asarray(Image.open(tmp_path / 'palette.png').convert('RGBA' if transparent else 'RGB'))
    assert np.array_equal(np.asarray(Image.open(out)), expected)
    assert (picture.alpha is not None) == transparent


def test_black_and_white_and_cmyk(tmp_path):
    bits = Image.fromarray(noise(16, 16)).convert('1')
    bits.save(tmp_path / 'bits.png')
    assert np.array_equal(np.asarray(Image.open(back(tmp_path / 'bits.png')[1])), np.asarray(bits) * 255)
    Image.fromarray(smooth(30, 30)).convert('CMYK').save(tmp_path / 'print.jpg', quality=95, icc_profile=b'print')
    picture, out = back(tmp_path / 'print.jpg')
    assert Image.open(out).mode == 'RGB' and picture.profile is None


def test_gif_is_read_and_becomes_png(tmp_path, caplog):
    frames = [Image.fromarray(smooth(30, 40)).quantize(64) for _ in range(2)]
    frames[0].save(tmp_path / 'moving.gif', save_all=True, append_images=frames[1:])
    picture, out = back(tmp_path / 'moving.gif')
    assert out.suffix == '.png' and '2 frames' in caplog.text
    assert np.array_equal(np.asarray(Image.open(out).convert('RGB')), np.asarray(frames[0].convert('RGB')))
    assert (output_suffix('.JPG'), output_suffix('.gif'), output_suffix('')) == ('.JPG', '.png', '.png')


@pytest.mark.parametrize('suffix', ['.ppm', '.ras', '.hdr', '.jp2', '.tga'])
def test_rarer_types_are_read(tmp_path, suffix):
    array, path = smooth(64, 70), tmp_path / f'image{suffix}'
    if suffix == '.hdr':
        cv2.imwrite(str(path), array[..., ::-1].astype(np.float32) / 256)
    elif suffix == '.ras':
        cv2.imwrite(str(path), array[..., ::-1])
    else:
        Image.fromarray(array).save(path)
    assert np.abs(read_picture(path).pixels * 255 - array).max() <= 4


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp', 'tif', 'deep.png', 'deep.tif'])
def test_the_orientation_is_applied_once_by_every_decoder(tmp_path, tifffile, orientation, kind):
    array, path = smooth(24, 40), tmp_path / f'turned.{kind}'
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == 'deep.tif':
        tag = (0x0112, 'H', 1, orientation, True)
        tifffile.imwrite(path, array.astype(np.uint16) * 257, photometric='rgb', extratags=[tag])
    elif kind == 'deep.png':
        deep = cv2.imencode('.png', array[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
        path.write_bytes(with_exif(deep, exif))
    elif kind == 'tif':
        Image.fromarray(array).save(path, tiffinfo={0x0112: orientation})
    else:
        options = {'quality': 95, 'subsampling': 0} if kind == 'jpg' else {'lossless': True}
        Image.fromarray(array).save(path, exif=exif, **options)
    plain = Image.fromarray(array)
    plain.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(plain))
    picture, out = back(path)
    assert picture.depth == ('uint16' if 'deep' in kind else 'uint8')
    assert np.abs(picture.pixels * 255 - expected).mean() < 2
    assert np.array_equal(read_picture(out).pixels.shape, expected.shape)  # the image is not turned a second time


def with_exif(png, exif):
    """Returns the PNG with an eXIf chunk inserted before its first IDAT chunk."""
    body = exif.tobytes().removeprefix(b'Exif\0\0')
    chunk = struct.pack('>I', len(body)) + b'eXIf' + body + struct.pack('>I', zlib.crc32(b'eXIf' + body))
    place = png.index(b'IDAT') - 4
    return png[:place] + chunk + png[place:]


def test_the_colour_profile_is_kept(tmp_path):
    for suffix in ('.png', '.jpg', '.tif', '.webp'):
        Image.fromarray(smooth(20, 20)).save(tmp_path / f'image{suffix}', icc_profile=b'a profile')
        assert Image.open(back(tmp_path / f'image{suffix}')[1]).info['icc_profile'] == b'a profile'


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif', '.bmp', '.gif'])
@pytest.mark.parametrize('kept', [0.6, 0.02, 0])
def test_truncated_files_are_named(tmp_path, suffix, kept):
    buffer = io.BytesIO()
    Image.fromarray(noise(100, 100, 3)).save(buffer, Image.registered_extensions()[suffix])
    path = tmp_path / f'cut{suffix}'
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * kept)])
    with pytest.raises(DataError, match=f'cut{suffix}'):
        read_picture(path)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif', '.gif'])
def test_damaged_bytes_raise_only_data_errors(tmp_path, suffix):
    buffer, rng = io.BytesIO(), np.random.default_rng(0)
    Image.fromarray(noise(20, 20, 3)).save(buffer, Image.registered_extensions()[suffix])
    refused = 0
    for _ in range(60):
        data = bytearray(buffer.getvalue())
        for place in rng.integers(0, min(len(data), 200), 4):
            data[place] = rng.integers(0, 256)
        (tmp_path / 'damaged').write_bytes(data)
        try:
            read_picture(tmp_path / 'damaged')
        except DataError:
            refused += 1
    assert refused > 5


def test_absent_files_folders_and_texts_are_named(tmp_path):
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'folder.png').mkdir()
    for name in ('text', 'folder', 'absent'):
        with pytest.raises(DataError, match=f'{name}.png'):
            read_picture(tmp_path / f'{name}.png')


def test_integers_without_a_known_range_are_refused(tmp_path, tifffile):
    tifffile.imwrite(tmp_path / 'wide.tif', noise(8, 8).astype(np.int32))
    with pytest.raises(DataError, match='wide.tif.*int32'):
        read_picture(tmp_path / 'wide.tif')


def test_a_size_that_the_type_cannot_hold_leaves_nothing(tmp_path):
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / 'image.png')
    like = read_picture(tmp_path / 'image.png')
    with pytest.raises(DataError, match='17000x1'):
        write_picture(tmp_path / 'wide.webp', np.zeros((1, 17000, 3), np.float32), like)
    assert [path.name for path in tmp_path.iterdir()] == ['image.png']


def test_jpeg_has_quality_95_and_no_alpha(tmp_path):
    Image.fromarray(noise(16, 16, 4)).save(tmp_path / 'alpha.png')
    image = Image.open(back(tmp_path / 'alpha.png', tmp_path / 'out.jpg')[1])
    reference = io.BytesIO()
    Image.new('RGB', (16, 16)).save(reference, 'JPEG', quality=95)
    assert image.mode == 'RGB' and image.quantization == Image.open(reference).quantization
