"""Sizes of the image files that OpenCV reads and Pillow does not: floating-point TIFF, Radiance, PFM, PAM and OpenEXR.

OpenCV has no function that reads a size without decoding the file.
"""

import io
import re
import struct

from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, ImageFileDirectory_v2

RADIANCE = re.compile(rb'#\?[\s\S]{0,65536}?\n[-+]([XY]) (\d{1,10}) [-+][XY] (\d{1,10})\n')
PFM = re.compile(rb'P[Ff]\s+(\d{1,10})\s+(\d{1,10})\s')
PAM = re.compile(rb'P7\n(?:(?!ENDHDR)[^\n]{0,200}\n){0,50}ENDHDR\n')
PAM_SIDES = tuple(re.compile(rb'\n' + name + rb'\s+(\d{1,10})\s') for name in (b'WIDTH', b'HEIGHT'))
EXR, WINDOW = b'\x76\x2f\x31\x01', b'dataWindow\0box2i\0\x10\0\0\0'
TIFF, BIG_TIFF = (b'II*\0', b'MM\0*'), (b'II+\0', b'MM\0+')


def size_in_header(data: bytes) -> tuple[int, int] | None:
    """Returns the (width, height) of an image file, or None if its type is not known here or its header is damaged."""
    radiance, pfm = RADIANCE.match(data), PFM.match(data)
    if radiance:
        first, second = int(radiance[2]), int(radiance[3])
        return (second, first) if radiance[1] == b'Y' else (first, second)
    if pfm:
        return int(pfm[1]), int(pfm[2])
    if pam := PAM.match(data):
        sides = [pattern.search(pam[0]) for pattern in PAM_SIDES]
        return tuple(int(side[1]) for side in sides) if all(sides) else None
    if data.startswith((*TIFF, *BIG_TIFF)):
        return _tiff_size(data)
    place = data.find(WINDOW) if data.startswith(EXR) else -1
    if place < 0 or len(data) < place + len(WINDOW) + 16:
        return None
    left, top, right, bottom = struct.unpack_from('<4i', data, place + len(WINDOW))
    return max(right - left + 1, 0), max(bottom - top + 1, 0)


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    try:
        directory = ImageFileDirectory_v2(data[: 16 if data.startswith(BIG_TIFF) else 8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        return int(directory[IMAGEWIDTH]), int(directory[IMAGELENGTH])
    except Exception:  # on damaged bytes, Pillow raises almost any error; the decoder names it
        return None
