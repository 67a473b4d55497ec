"""Records of fetched files: `fetched.json` in their folder, and the hashes of first use in the cache folder."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from pydantic import with_config
from typing_extensions import TypedDict

from rass_mm.errors import DownloadError
from rass_mm.fetching.checking import CATALOG, FIRST_USE, Measured
from rass_mm.files.atomic import write_text
from rass_mm.files.locks import held
from rass_mm.files.schemas import ALLOWED, read_json
from rass_mm_cli.bases import cache_folder
from rass_mm_cli.catalog import Entry

RECORD = 'fetched.json'
SHA256 = re.compile(r'[0-9a-f]{64}')
WAIT = 30.0
"""Seconds to wait for another process that writes the hashes of first use, which takes milliseconds."""


@with_config(ALLOWED)
class FileRecord(TypedDict):
    """Size, SHA-256 and origin of the expected hash (`catalog` or `first use`) of a fetched file."""

    size: int
    sha256: str
    checked: str


@with_config(ALLOWED)
class FolderRecord(TypedDict):
    """Content of `fetched.json`."""

    entry: str
    files: dict[str, FileRecord]


def trust_file(entry: Entry) -> Path:
    """Returns the path of the hashes of first use of an entry."""
    return cache_folder() / 'fetched' / f'{entry.name}.json'


def _first_uses(entry: Entry) -> dict[str, str]:
    path = trust_file(entry)
    if not path.exists():
        return {}
    fix = f'Delete it to trust the files of {entry.name} again on their next use.'
    hashes = read_json(path, dict[str, str], fix, DownloadError)
    wrong = next((value for value in hashes.values() if not SHA256.fullmatch(value)), None)
    if wrong is not None:
        raise DownloadError(f'{path}: {wrong[:70]!r} is not a SHA-256. {fix}')
    return hashes


def trusted_hashes(entry: Entry, folder: Path) -> dict[str, str]:
    """Returns file name -> SHA-256 recorded on first use. The record in the cache precedes that in the folder.

    Raises:
        DownloadError: a record cannot be read, or that in the folder belongs to another entry.
    """
    path, found = folder / RECORD, {}
    if path.exists():
        record = read_json(path, FolderRecord, 'Move it elsewhere.', DownloadError)
        if record['entry'] != entry.name:
            raise DownloadError(
                f'{path} is the record of {record["entry"][:70]!r}. Choose another folder for {entry.name} with --to.'
            )
        found = {name: file['sha256'] for name, file in record['files'].items() if file['checked'] == FIRST_USE}
        found = {name: value for name, value in found.items() if SHA256.fullmatch(value)}
    found |= _first_uses(entry)
    return {file.name: found[file.name] for file in entry.files if file.name in found and not file.known}


def remember(entry: Entry, name: str, sha256: str) -> None:
    """Records the SHA-256 of a file on its first use.

    Raises:
        DownloadError: another process has recorded another hash meanwhile.
    """
    path = trust_file(entry)
    with held(path.parent, f'.{entry.name}.lock', path, patience=WAIT, clean=False):
        hashes = _first_uses(entry)
        if hashes.setdefault(name, sha256) != sha256:
            raise DownloadError(
                f'{name} has the SHA-256 {sha256}, but another command has just recorded {hashes[name]} in {path}. '
                'One of the sources gave another file. Compare them.'
            )
        write_text(path, json.dumps(hashes, indent=1, sort_keys=True) + '\n')


def write_record(entry: Entry, folder: Path, source: str, files: dict[str, Measured]) -> dict[str, object]:
    """Writes `fetched.json` and returns its content.

    Args:
        entry: the entry.
        folder: folder of the files.
        source: description of the source.
        files: name -> size and hashes of each file.
    """
    known = {file.name: file.known for file in entry.files}
    listed = {
        name: FileRecord(size=found.size, sha256=found.sha256, checked=CATALOG if known[name] else FIRST_USE)
        for name, found in files.items()
    }
    record = {
        'entry': entry.name,
        'source': source,
        'revision': entry.revision,
        'licence': entry.licence.name,
        'licence_address': entry.licence.address,
        'forbids': entry.licence.forbids,
        'time': datetime.now(UTC).isoformat(timespec='seconds'),
        'files': listed,
    }
    write_text(folder / RECORD, json.dumps(record, indent=1) + '\n')
    return record
