"""Tar files as containers, also as WebDataset reads and writes them.

Only headers are read by `tarfile`. The bytes of a member are read from their offset, and nothing is extracted by name.
"""

import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from rass_mm.errors import DataError
from rass_mm.files.containers.members import AGAIN, Listing, Member, add_member, plain_name

COMPRESSED = {b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ\x00': 'xz', b'\x28\xb5\x2f\xfd': 'zstd'}
"""First bytes of compressed files."""
MOST_HEADER = 2**14
"""Largest header in bytes that states a long name or other properties of the next member."""
MOST_MEMBER = 2**31
"""Largest member in bytes."""
TRAILER = 2**20
"""Bytes after the end of the archive that are checked to be zero."""
EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
"""Types of headers that are read into memory as a whole."""
RECORD = re.compile(rb'(\d{1,7}) [^=\n]+=')
"""Start of a record of a PAX header: its length in bytes, and its key."""
MOST_DIGITS = re.compile(rb'\d{256}')
"""More digits in a row than a name can have. Python before 3.11.10 needs minutes for many of them (CVE-2024-6232)."""
NAMES = {'encoding': 'utf-8', 'errors': 'surrogateescape'}


class _Header(tarfile.TarInfo):
    """Header whose size is checked before what follows it is read."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> 'tarfile.TarInfo':
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in EXTENDED and header.size > MOST_HEADER):
            raise DataError(f'a header states a size of {header.size} bytes; at most {MOST_HEADER} are expected')
        return header

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        start = archive.fileobj.tell()
        _check_records(archive.fileobj.read(self.size))
        archive.fileobj.seek(start)
        return super()._proc_pax(archive)


def _check_records(header: bytes) -> None:
    """Raises a DataError for a PAX header that `tarfile` would need long for, or that is not made of records."""
    if MOST_DIGITS.search(header):
        raise DataError('a header has 256 digits in a row')
    place, end = 0, len(header.rstrip(b'\0'))
    while place < end:
        record = RECORD.match(header, place)
        after = place + int(record[1]) if record else 0
        if not record or after < record.end() + 1 or header[after - 1 : after] != b'\n':
            raise DataError(f'a header has no valid record at its byte {place}')
        place = after


def listing(path: Path) -> Listing:
    """Lists the members of a tar file.

    Raises:
        DataError: the file is compressed, damaged or cut off, or has a member whose name or size is not allowed.
        OSError: the file cannot be read.
    """
    status = path.stat()
    members: dict[str, Member] = {}
    left_out: dict[str, list[str]] = {}
    with path.open('rb') as file:
        _refuse_compressed(path, file.read(8))
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode='r:', tarinfo=_Header, **NAMES) as archive:
                while (found := archive.next()) is not None:
                    archive.members = []  # which would hold all headers in memory
                    kind = _kind_left_out(found)
                    if kind is not None:
                        left_out.setdefault(kind, []).append(found.name)
                    elif not found.isdir():
                        name = plain_name(found.name, path)
                        _check_size(path, found, status.st_size)
                        place = (found.offset_data, found.size)
                        add_member(members, Member(path, name, status.st_size, status.st_mtime_ns, place))
                _check_end(path, file, archive.offset)
        except DataError as error:
            raise DataError(str(error) if str(path) in str(error) else f'{path} is damaged: {error}. {AGAIN}') from None
        except (tarfile.TarError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            raise DataError(f'{path} cannot be read as a tar file ({error}). Copy it again.') from None
    return Listing(members, left_out)


def _refuse_compressed(path: Path, start: bytes) -> None:
    found = next((kind for magic, kind in COMPRESSED.items() if start.startswith(magic)), None)
    if found is not None:
        raise DataError(
            f'{path} is compressed with {found}. Its members cannot be read in any order, which resuming and shards '
            'need, and images are compressed already. Decompress the file, and pass the .tar file.'
        )


def _kind_left_out(found: tarfile.TarInfo) -> str | None:
    if found.isreg() or found.isdir():
        return None
    return 'links in tar files' if found.issym() or found.islnk() else 'special members of tar files'


def _check_size(path: Path, found: tarfile.TarInfo, size: int) -> None:
    what = f'{path}: the member {found.name!r}'
    if found.issparse():
        raise DataError(f'{what} is stored as a sparse file, which is not supported. Write the file without --sparse.')
    if found.size > MOST_MEMBER:
        raise DataError(f'{what} has {found.size} bytes, but at most {MOST_MEMBER} are allowed. Remove it.')
    if found.size < 0 or found.offset_data + found.size > size:
        raise DataError(f'{what} ends behind the end of the file, which is cut off or damaged. Copy the file again.')


def _check_end(path: Path, file: BinaryIO, offset: int) -> None:
    """Raises a DataError if the archive ends otherwise than with zeros, where `tarfile` ends without a message."""
    file.seek(offset)
    end = file.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE:
        raise DataError(f'{path} has no end of archive, so it is cut off. Copy the file again.')
    if end.strip(b'\0'):
        raise DataError(f'{path} is damaged: there is no valid header at byte {offset}. Copy the file again.')
    if file.read(TRAILER).strip(b'\0'):
        raise DataError(
            f'{path} continues after its end. Members after that are not read by tar. If tar files were appended to '
            'each other, pass them as several files.'
        )


def read(member: Member) -> bytes:
    """Returns the bytes of a member of a tar file.

    Raises:
        DataError: the file has changed or ends too early.
    """
    offset, length = member.place
    try:
        with member.container.open('rb') as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise DataError(f'{member}: the container cannot be read ({error}).') from None
    if len(data) != length:
        raise DataError(f'{member}: the container ends too early. Copy it again.')
    return data


def write(path: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Writes files into a tar file, without times, owners and other properties of the files.

    Args:
        path: the tar file.
        files: names in the container, and the files.

    Raises:
        OSError: a file cannot be read, or the container cannot be written.
    """
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT, **NAMES) as archive:
        for name, file in files:
            header = tarfile.TarInfo(name)  # time 0, owner 0, mode 0o644
            header.size = file.stat().st_size
            with file.open('rb') as source:
                archive.addfile(header, source)
