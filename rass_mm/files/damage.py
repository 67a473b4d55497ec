"""Detection of damage in the middle of PNG and JPEG files, which Pillow and OpenCV decode without an error.

Both decoders ignore the checksums of a PNG file. On damaged JPEG data, libjpeg fills the image with wrong pixels and
only writes a warning to the error output of the process. The warning is therefore read there. A JPEG file has no
checksums, so damage after which the data can still be decoded cannot be detected. The same applies to WebP.
"""

import os
import re
import struct
import threading
import zlib
from collections.abc import Callable

import cv2
import numpy as np

PNG, JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
END = b'\xff\xd9'
PADDING = 4
"""Surplus bytes before the end of a JPEG file that are accepted. Some cameras write them."""
SURPLUS = re.compile(r'(\d+) extraneous bytes')
WARNINGS = re.compile(r'(Corrupt JPEG data|Premature end of JPEG file).*')
_LOCK = threading.Lock()


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
    place = len(PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from('>I4s', data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        needed = kind[:1].isupper() or kind == b'tRNS'  # damaged texts do not change the pixels
        if needed and zlib.crc32(data[place + 4 : end]) != struct.unpack_from('>I', data, end)[0]:
            return f'its block {kind.decode("ascii", "replace")} at byte {place} does not have the checksum in the file'
        if kind == b'IEND':
            return None
        place = end + 4
    return 'the end of the file is missing'


def _jpeg_fault(data: bytes) -> str | None:
    # A reduced image takes less time, but all of the compressed data is read.
    written = _errors_of(lambda: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8))
    found = WARNINGS.search(written)
    if found is None:
        return None
    surplus = SURPLUS.search(found[0])
    if surplus is None:
        return found[0].strip()
    count = int(surplus[1])
    padding = data[: data.rfind(END)][-count:]  # some cameras fill the last sector
    return None if count <= PADDING or not padding.strip(b'\0\xff') else found[0].strip()


def _errors_of(call: Callable[[], object]) -> str:
    """Calls a function and returns what it writes to the error output of the process."""
    with _LOCK, open(os.memfd_create('errors') if hasattr(os, 'memfd_create') else os.devnull, 'w+b') as file:
        try:
            kept = os.dup(2)
        except OSError:  # the process has no error output
            return ''
        os.dup2(file.fileno(), 2)
        try:
            call()
        except cv2.error:
            return ''  # the decoders describe the fault
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        return file.read().decode(errors='replace')
