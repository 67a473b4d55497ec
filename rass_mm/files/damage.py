"""Detection of damage in the middle of PNG and JPEG files, which Pillow and OpenCV decode without an error.

Pillow ignores the checksums of a PNG file's pixels, missing rows and a missing end, OpenCV all checksums. Missing rows
are found by decompressing the pixels, which takes about half as long as decoding them. On damaged JPEG data,
libjpeg fills the image with wrong pixels and only reports a warning, which both ignore. simplejpeg raises it. A JPEG
file has no checksums, so damage after which the data can still be decoded cannot be detected. The same applies to WebP.
"""

import io
import re
import struct
import zlib
from collections.abc import Sequence

import simplejpeg
from PIL import Image

PNG, JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type of a PNG file -> number of channels."""
WHOLE = ((0, 0, 1, 1),)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced PNG file: first column, first row, and the steps between columns and rows."""
PIECE, LIMIT = 2**16, 2**22
"""Bytes that are decompressed in one step, and the largest result of a step."""
END = b'\xff\xd9'
PADDING = 4
"""Surplus bytes before the end of a JPEG file that are accepted. Some cameras write them."""
SURPLUS = re.compile(r'(\d+) extraneous bytes before marker 0xd9')
START_OF_SCAN, WHOLE_SPECTRUM = 0xDA, b'\0\x3f\0'
BASELINE = (0xC0, 0xC1)
NEEDED = (*range(0xC0, 0xD0), 0xDB, 0xDD)
"""Markers of frames, tables and restart intervals."""
WARNINGS = re.compile(r'Corrupt JPEG data|Premature end of JPEG file')


def fault_in(data: bytes) -> str | None:
    """Returns a description of the damage in a PNG or JPEG file, or None if none was found.

    Files of other types are not checked.
    """
    if data.startswith(PNG):
        return _png_fault(data)
    if data.startswith(JPEG):
        return _jpeg_fault(data)
    return None


def _png_fault(data: bytes) -> str | None:
    place, parts = len(PNG), []
    while place + 12 <= len(data):
        length, kind = struct.unpack_from('>I4s', data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        needed = kind[:1].isupper() or kind == b'tRNS'  # damaged texts do not change the pixels
        if needed and zlib.crc32(data[place + 4 : end]) != struct.unpack_from('>I', data, end)[0]:
            return f'its block {kind.decode("ascii", "replace")} at byte {place} does not have the checksum in the file'
        if kind == b'IDAT':
            parts.append(memoryview(data)[place + 8 : end])
        if kind == b'IEND':
            return _missing_rows(data, parts)
        place = end + 4
    return 'the end of the file is missing'


def _missing_rows(data: bytes, parts: Sequence[memoryview]) -> str | None:
    """Returns a fault if the compressed pixels of a PNG file are fewer than its header says."""
    needed = _bytes_of_pixels(data)
    if needed is None:
        return None  # the decoder names what is wrong with the header
    found, inflate = 0, zlib.decompressobj()
    pieces = (part[start : start + PIECE] for part in parts for start in range(0, len(part), PIECE))
    try:
        for piece in pieces:
            while piece and found < needed and not inflate.eof:
                found += len(inflate.decompress(piece, LIMIT))
                piece = inflate.unconsumed_tail
        if found < needed:
            found += len(inflate.flush())
    except zlib.error as error:
        return None if found >= needed else f'its pixels cannot be decompressed: {error}'
    return None if found >= needed else f'it has only {found:,} of the {needed:,} bytes of its rows'


def _bytes_of_pixels(data: bytes) -> int | None:
    """Returns the size of the decompressed rows of a PNG file, each with its filter type, or None."""
    if len(data) < 29 or data[12:16] != b'IHDR' or data[25] not in CHANNELS:
        return None
    width, height, depth, kind = struct.unpack_from('>IIBB', data, 16)
    total = 0
    for left, top, across, down in ADAM7 if data[28] else WHOLE:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * CHANNELS[kind] * depth + 7) // 8)
    return total


def _jpeg_fault(data: bytes) -> str | None:
    warning = _warning(data)
    if warning is None or _is_padding(data, warning):
        return None
    # libjpeg stops at the first warning, which can be a harmless one about the header.
    bare = _with_bare_header(data)
    remaining = _warning(bare)
    return None if remaining is None or _is_padding(bare, remaining) else _fault_of(data, remaining)


def _warning(data: bytes) -> str | None:
    """Returns the first warning or error of libjpeg, or None."""
    try:
        # A reduced image takes less time, but all of the compressed data is read.
        simplejpeg.decode_jpeg(data, 'GRAY', min_factor=8, min_height=1, min_width=1, strict=True)
    except ValueError as error:
        return str(error)
    return None


def _fault_of(data: bytes, warning: str) -> str | None:
    """Returns the description of what libjpeg reported, or None if it is no damage."""
    if WARNINGS.match(warning) is None:  # a kind of JPEG that simplejpeg does not decode
        try:
            Image.open(io.BytesIO(data)).load()
        except Image.DecompressionBombError:
            return None  # the limit of pixels has its own check
        except Exception as error:  # on damaged bytes, Pillow's decoders raise almost any error, e.g. TypeError
            return str(error)
        return None
    return warning


def _is_padding(data: bytes, warning: str) -> bool:
    """Returns whether a warning is about padding before the end of the image. Some cameras fill the last sector."""
    surplus = SURPLUS.search(warning)
    if surplus is None:
        return False
    count = int(surplus[1])
    return count <= PADDING or re.search(rb'[\0\xff]{%d}\xff\xd9' % count, data) is not None


def _with_bare_header(data: bytes) -> bytes:
    """Returns a JPEG file with only those segments before the first scan that decoding needs."""
    kept, place, baseline = [data[:2]], 2, False
    while (place := data.find(b'\xff', place)) != -1 and place + 4 <= len(data):
        kind, length = data[place + 1], 2 + int.from_bytes(data[place + 2 : place + 4], 'big')
        if kind in (0x00, 0xFF):
            place += 1
            continue
        segment, place = data[place : place + length], place + length
        if kind == START_OF_SCAN:
            # Decoders ignore these three bytes of an image that is not progressive, and warn if they are unusual.
            return b''.join((*kept, segment[:-3] + WHOLE_SPECTRUM if baseline else segment, data[place:]))
        baseline = baseline or kind in BASELINE
        kept += [segment] * (kind in NEEDED)
    return data
