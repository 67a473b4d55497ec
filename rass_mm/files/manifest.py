"""Manifests: JSON lines that record the contents of an output folder, so that an interrupted job can resume.

The first line is a header with the settings. Each further line describes one finished image, with its name under
'image'.
"""

import json
import logging
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from rass_mm.errors import DataError
from rass_mm.files.atomic import MARK, remove_abandoned, temporary_prefix, write_text
from rass_mm.files.integrity import check_complete, decode_fully
from rass_mm.files.regular import check_regular, is_special
from rass_mm.files.schemas import FileName, checked
from rass_mm.files.walking import walk

logger = logging.getLogger(__name__)

AGAIN = 'Choose another output folder, or delete this one to make its images again.'
MANIFEST, PARTIAL = 'manifest.jsonl', 'manifest.partial.jsonl'
"""Names of a manifest, and of one that becomes the manifest when all images are finished."""
PNG, PNG_END = b'\x89PNG', b'IEND\xaeB`\x82'
Record = dict[str, Any]


class Line(TypedDict):
    """Line of a finished image, as far as all manifests have it."""

    image: FileName


def read_manifest(path: Path, kind: Any = Line) -> tuple[Record, dict[str, Record]]:
    """Reads a manifest and returns its header and its lines by image name.

    A damaged line and all lines after it are ignored. A process that is killed while it writes a line leaves an
    incomplete line, and that image is processed again.

    Args:
        path: the manifest.
        kind: the required type of a line.

    Raises:
        DataError: the file cannot be read, or its first line is not a header.
    """
    check_regular(path, AGAIN)
    try:
        text = path.read_text(encoding='utf-8', errors='replace')
    except OSError as error:
        raise DataError(f'{path} cannot be read ({error.strerror}). {AGAIN}') from None
    first, *others = text.splitlines() or ['']
    header = parsed(first)
    if not isinstance(header, dict):
        raise DataError(f'{path} is damaged: its first line is not the header of a manifest. {AGAIN}')
    lines = {}
    for number, line in enumerate(others, 2):
        try:
            record = checked(parsed(line), kind, f'{path}:{number}', 'The line is ignored')
        except DataError as error:
            logger.warning('%s, and so are the lines after it. Their images are processed again.', error)
            break
        lines[record['image']] = record
    return header, lines


def parsed(line: str) -> Any:
    """Returns the value of a JSON line, or None if the line is damaged."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def read_header(path: Path) -> Record:
    """Returns the header of a manifest, or an empty dict if the file is missing or not a manifest."""
    if is_special(path):
        return {}
    try:
        with path.open(encoding='utf-8') as lines:
            header = json.loads(next(lines))
    except (OSError, ValueError, StopIteration, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def has_header_only(path: Path) -> bool:
    """Returns whether a manifest is there and records no image, not even in a damaged line."""
    if is_special(path):
        return False
    try:
        with path.open('rb') as lines:
            return bool(next(lines, b'')) and not next(lines, b'')
    except OSError:
        return False


def checksum(data: bytes) -> int:
    """Returns the checksum of an output that its manifest line contains. It detects damage, but not intent."""
    return zlib.crc32(data)


def output_state(path: Path, recorded: Any) -> str:
    """Compares an output with its manifest line.

    Args:
        path: an image file.
        recorded: the checksum in the line. None is the value of lines that were written before it was introduced.

    Returns:
        'whole', 'changed' (another image, which is complete), or 'damaged' (also for a missing file).
    """
    if is_special(path):
        return 'damaged'
    try:
        data = path.read_bytes()
        if recorded is None:
            check_complete(data, str(path))
        elif checksum(data) != recorded:
            decode_fully(data, str(path))
            cut = data.startswith(PNG) and PNG_END not in data  # Pillow does not read the last bytes
            return 'damaged' if cut else 'changed'
    except (OSError, DataError):
        return 'damaged'
    return 'whole'


def write_manifest(path: Path, header: Record, lines: Iterable[Record]) -> None:
    """Writes the header and the lines atomically."""
    write_text(path, ''.join(json.dumps(record) + '\n' for record in (header, *lines)))


def append_line(path: Path, line: Record) -> None:
    """Appends one line and closes the file at once, so that the line survives the end of this process."""
    append_lines(path, [line])


def append_lines(path: Path, lines: Iterable[Record]) -> None:
    """Appends lines in one write, see `append_line`."""
    with path.open('a', encoding='utf-8') as file:
        file.write(''.join(json.dumps(line) + '\n' for line in lines))


def remove_leftovers(folder: Path, suffixes: Iterable[str], targets: Iterable[Path] | None = None) -> None:
    """Removes the temporary files that `files.atomic` leaves behind when the process is killed.

    Args:
        folder: the folder to search, including its subfolders.
        suffixes: suffixes of the files that were written, e.g. '.png'. Manifests are always included.
        targets: the files below the folder whose temporary files are removed. None removes those of all files, which
            no other process may be writing if the file system has no locks.
    """
    endings = '|'.join(suffix.lstrip('.') for suffix in ('.jsonl', *suffixes))
    leftover = re.compile(rf'(\..*{MARK})\w{{8}}(\.({endings}))')
    own = None if targets is None else {(path.parent, temporary_prefix(path), path.suffix) for path in targets}
    for path in walk(folder):
        found = leftover.fullmatch(path.name)
        if found and (own is None or (path.parent, found[1], found[2]) in own) and path.is_file():
            remove_abandoned(path)
