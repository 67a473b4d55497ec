"""Damage in the middle of image files, which the decoders do not report."""

import io
import os
import struct
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from rass_mm.errors import DataError
from rass_mm.files.damage import fault_in
from rass_mm.files.images import read_picture
from rass_mm.files.integrity import check_complete
from rass_mm.files.naming import MOST_BYTES, shortened


def encoded(kind, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((256, 192)).save(buffer, kind, **options)
    return buffer.getvalue()


def inverted(data, count=64):
    middle = len(data) // 2
    return data[:middle] + bytes(255 - value for value in data[middle : middle + count]) + data[middle + count :]


KINDS = [('PNG', {}), ('JPEG', {}), ('JPEG', {'progressive': True}), ('JPEG', {'optimize': True})]


@pytest.mark.parametrize(('kind', 'options'), KINDS)
def test_a_whole_file_has_no_fault(kind, options):
    data = encoded(kind, **options)
    assert fault_in(data) is None
    check_complete(data, 'a')


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_inverted_bytes_in_the_middle_are_found_by_every_reader(kind, tmp_path, capfd):
    data = inverted(encoded(kind, quality=95))
    with pytest.raises(DataError, match=r'a\.png'):
        check_complete(data, 'a.png')
    (tmp_path / 'a.png').write_bytes(data)
    with pytest.raises(DataError, match=r'a\.png'):
        read_picture(tmp_path / 'a.png')
    assert 'Corrupt' not in capfd.readouterr().err


def test_an_end_in_the_middle_of_a_jpeg_is_found():
    data = encoded('JPEG')
    middle = len(data) // 2
    assert 'premature end' in fault_in(data[:middle] + b'\xff\xd9' + data[middle + 2 :])


def test_bytes_after_the_end_are_no_fault():
    assert fault_in(encoded('JPEG') + bytes(500)) is None
    assert fault_in(encoded('PNG') + bytes(500)) is None


def test_a_damaged_text_in_a_png_is_no_fault():
    data = encoded('PNG')
    text = b'\0\0\0\x03tEXtabc' + bytes(4)
    assert fault_in(data[:33] + text + data[33:]) is None


def test_damage_is_found_while_other_threads_write_errors(capfd):
    data = encoded('JPEG')
    damaged = data[: len(data) // 2] + b'\xff\xd9'
    lines = [f'line {number}\n' for number in range(300)]
    writer = threading.Thread(target=lambda: [os.write(2, line.encode()) for line in lines])
    writer.start()
    faults = {fault_in(damaged) for _ in range(50)}
    writer.join()
    assert len(faults) == 1 and 'premature end' in faults.pop()
    assert capfd.readouterr().err == ''.join(lines)


def test_surplus_bytes_are_padding_only_at_the_end():
    data = encoded('JPEG', progressive=True)
    scan = data.rindex(b'\xff\xc4')
    assert 'extraneous' in fault_in(data[:scan] + bytes([1]) * 8 + data[scan:])
    assert fault_in(data[:-2] + bytes([1]) * 8 + data[-2:]) is None


def with_segment(data, kind, content):
    return data[:2] + bytes([0xFF, kind]) + (len(content) + 2).to_bytes(2, 'big') + content + data[2:]


HARMLESS = {
    'revision': lambda data: data.replace(b'JFIF\0\1\1', b'JFIF\0\x09\1', 1),
    'spectrum': lambda data: data.replace(b'\0\x3f\0', bytes(3), 1),
    'junk': lambda data: with_segment(data, 0xFE, b'').replace(b'\xff\xdb', b'\1\2\xff\xdb', 1),
}


@pytest.mark.parametrize('change', HARMLESS.values(), ids=HARMLESS)
def test_damage_is_found_behind_a_harmless_fault_of_the_header(change):
    data = encoded('JPEG')
    changed = change(data)
    assert changed != data and fault_in(changed) is None
    assert 'premature end' in fault_in(changed[: len(changed) // 2] + b'\xff\xd9')


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'restart_marker_blocks': 4}])
def test_padding_before_the_end_of_the_first_of_several_images_is_no_fault(options):
    data = encoded('JPEG', **options)
    padded = data[:-2] + bytes(40) + data[-2:]
    assert fault_in(padded) is None and fault_in(padded + encoded('JPEG')) is None


def test_a_jpeg_between_whose_ends_is_nothing_is_damaged():
    with pytest.raises(DataError, match=r'a\.jpg'):
        check_complete(b'\xff\xd8\xff' + bytes(100) + b'\xff\xd9', 'a.jpg')


@pytest.mark.parametrize('mode', ['L', 'RGB', 'CMYK'])
def test_every_mode_of_a_jpeg_is_whole(mode):
    buffer = io.BytesIO()
    Image.new(mode, (64, 48)).save(buffer, 'JPEG')
    assert fault_in(buffer.getvalue()) is None
    assert fault_in(buffer.getvalue()[:-20]) is not None


@pytest.mark.parametrize('stem', ['short', 'n' * 251, 'ä' * 120, os.fsdecode(b'\xff' * 251)])
def test_a_name_is_shortened_to_what_file_systems_accept(stem, tmp_path):
    name = shortened(stem, '_attention.png')
    assert len(os.fsencode(name)) <= MOST_BYTES
    (tmp_path / name).touch()
    assert (name == 'short_attention.png') == (stem == 'short')
    assert shortened(stem[:-1] + 'y', '_attention.png') != name


PNG_KINDS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = ['16462646', '77777777', '56565656', '77777777', '36463646', '77777777', '56565656', '77777777']
"""The pass of each pixel of an 8x8 tile, as the PNG specification draws it."""


def interlaced_rows(width, height):
    """Returns the number of pixels of each row of each pass."""
    passes = [[[] for _ in range(height)] for _ in range(7)]
    for y in range(height):
        for x in range(width):
            passes[int(ADAM7[y % 8][x % 8]) - 1][y].append(x)
    return [len(row) for rows in passes for row in rows if row]


def png(kind, depth, interlaced, size=(19, 13), missing=0):
    """Returns a PNG file of zeros of which the last bytes of the pixels are missing."""
    rows = interlaced_rows(*size) if interlaced else [size[0]] * size[1]
    raw = bytes(sum(1 + -(-pixels * CHANNELS[kind] * depth // 8) for pixels in rows))
    data = zlib.compress(raw[: len(raw) - missing])
    palette = [(b'PLTE', bytes(3))] if kind == 3 else []
    header = struct.pack('>IIBBBBB', *size, depth, kind, 0, 0, interlaced)
    half = len(data) // 2
    parts = [(b'IHDR', header), *palette, (b'IDAT', data[:half]), (b'IDAT', data[half:]), (b'IEND', b'')]
    blocks = (struct.pack('>I', len(part)) + name + part for name, part in parts)
    sums = (struct.pack('>I', zlib.crc32(name + part)) for name, part in parts)
    return b'\x89PNG\r\n\x1a\n' + b''.join(block + crc for block, crc in zip(blocks, sums, strict=True))


@pytest.mark.parametrize('interlaced', [0, 1])
@pytest.mark.parametrize(('kind', 'depth'), [(kind, depth) for kind in PNG_KINDS for depth in PNG_KINDS[kind]])
def test_missing_rows_of_a_png_are_found(kind, depth, interlaced, tmp_path):
    for size in [(19, 13), (1, 1), (3, 2), (8, 8), (300, 5)]:
        whole = png(kind, depth, interlaced, size)
        assert fault_in(whole) is None and Image.open(io.BytesIO(whole)).load()
        with pytest.raises(DataError, match=r'a\.png: the image is damaged \(it has only [\d,]+ of the'):
            check_complete(png(kind, depth, interlaced, size, missing=1), 'a.png')
    (tmp_path / 'a.png').write_bytes(png(kind, depth, interlaced, missing=9))
    with pytest.raises(DataError, match=r'a\.png.*(it has only|truncated)'):
        read_picture(tmp_path / 'a.png')


def test_pixels_that_cannot_be_decompressed_are_named():
    data = png(2, 8, 0)
    start = data.index(b'IDAT') + 4
    end = start + struct.unpack_from('>I', data, start - 8)[0]
    changed = b'\xff' * (end - start)
    crc = struct.pack('>I', zlib.crc32(b'IDAT' + changed))
    with pytest.raises(DataError, match='cannot be decompressed'):
        check_complete(data[:start] + changed + crc + data[end + 4 :], 'a.png')


def test_a_png_that_would_inflate_to_much_more_than_its_rows_is_not_inflated():
    data = zlib.compress(bytes(2**28), 1)
    header = struct.pack('>IIBBBBB', 8, 8, 8, 0, 0, 0, 0)
    parts = [(b'IHDR', header), (b'IDAT', data), (b'IEND', b'')]
    blocks = (struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d)) for k, d in parts)
    tracemalloc.start()
    fault_in(b'\x89PNG\r\n\x1a\n' + b''.join(blocks))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
