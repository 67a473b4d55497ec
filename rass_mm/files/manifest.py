"""Manifests: what an output folder holds, as JSON lines, so that a stopped job resumes.

The first line is a header with the settings; each further line is one finished image, with its name under 'image'.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rass_mm.files.atomic import write_text

MANIFEST = 'manifest.jsonl'
Record = dict[str, Any]


def read_manifest(path: Path) -> tuple[Record, dict[str, Record]]:
    """Header, and the lines by image. An unreadable line and what follows it are left out.

    A process that is killed while it writes a line leaves a part of it: that image is made again.
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
    """First line of a manifest; empty where there is no manifest."""
    try:
        with path.open(encoding='utf-8') as lines:
            header = json.loads(next(lines))
    except (OSError, ValueError, StopIteration):
        return {}
    return header if isinstance(header, dict) else {}


def write_manifest(path: Path, header: Record, lines: Iterable[Record]) -> None:
    """Writes header and lines in one step."""
    write_text(path, ''.join(json.dumps(record) + '\n' for record in (header, *lines)))


def append_line(path: Path, line: Record) -> None:
    """Adds one line; the file is closed at once, so that the line survives the end of this process."""
    with path.open('a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')


def remove_leftovers(folder: Path, suffixes: Iterable[str]) -> None:
    """Removes the temporary files that `files.atomic` leaves behind when its process is killed.

    Args:
        folder: searched with its subfolders.
        suffixes: of the files that are written there, e.g. '.png'; manifests are always included.
    """
    endings = '|'.join(suffix.lstrip('.') for suffix in ('.jsonl', *suffixes))
    leftover = re.compile(rf'\..+-\w{{8}}\.({endings})')
    for path in folder.rglob('.*'):
        if leftover.fullmatch(path.name):
            path.unlink(missing_ok=True)
