"""Manifests: JSON lines that record the contents of an output folder, so that an interrupted job can resume.

The first line is a header with the settings. Each further line describes one finished image, with its name under
'image'.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rass_mm.files.atomic import write_text
from rass_mm.files.walking import walk

MANIFEST = 'manifest.jsonl'
Record = dict[str, Any]


def read_manifest(path: Path) -> tuple[Record, dict[str, Record]]:
    """Reads a manifest and returns its header and its lines by image name.

    An unreadable line and all lines after it are ignored. A process that is killed while it writes a line leaves an
    incomplete line, and that image is processed again.
    """
    records = []
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    header = records[0] if records and isinstance(records[0], dict) else {}
    return header, {record['image']: record for record in records[1:]}


def read_header(path: Path) -> Record:
    """Returns the header of a manifest, or an empty dict if the file is missing or not a manifest."""
    try:
        with path.open(encoding='utf-8') as lines:
            header = json.loads(next(lines))
    except (OSError, ValueError, StopIteration):
        return {}
    return header if isinstance(header, dict) else {}


def write_manifest(path: Path, header: Record, lines: Iterable[Record]) -> None:
    """Writes the header and the lines atomically."""
    write_text(path, ''.join(json.dumps(record) + '\n' for record in (header, *lines)))


def append_line(path: Path, line: Record) -> None:
    """Appends one line and closes the file at once, so that the line survives the end of this process."""
    with path.open('a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')


def remove_leftovers(folder: Path, suffixes: Iterable[str]) -> None:
    """Removes the temporary files that `files.atomic` leaves behind when the process is killed.

    Args:
        folder: the folder to search, including its subfolders.
        suffixes: suffixes of the files that were written, e.g. '.png'. Manifests are always included.
    """
    endings = '|'.join(suffix.lstrip('.') for suffix in ('.jsonl', *suffixes))
    leftover = re.compile(rf'\..+-\w{{8}}\.({endings})')
    for path in walk(folder):
        if leftover.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)
