"""Comparison of a file with the hashes of the catalog, or with the hash recorded on first use."""

import codecs
import hashlib
from dataclasses import dataclass
from pathlib import Path

from rass_mm.errors import DownloadError
from rass_mm.files.hashing import BLOCK
from rass_mm_cli.catalog import RemoteFile

CATALOG, FIRST_USE = 'catalog', 'first use'
"""Origins of a hash: the catalog of this package, or the first file of this name that was fetched here."""
SMALLEST, WEIGHTS = 2**16, ('.safetensors', '.pth', '.pkl')
"""Minimum size in bytes of files with these suffixes. Error messages of servers and pointers are smaller."""
POINTER, PAGES = b'version https://git-lfs', (b'<!doctype', b'<html', b'<?xml')
"""First bytes of a Git LFS pointer, and of pages in lower case."""


@dataclass(frozen=True)
class Measured:
    """Size in bytes, SHA-256, Git identifier and first bytes of a file."""

    size: int
    sha256: str
    git: str
    start: bytes


def measure(path: Path) -> Measured:
    """Reads a file once and returns its size, hashes and first bytes."""
    size = path.stat().st_size
    sha256 = hashlib.sha256()
    git = hashlib.sha1(b'blob %d\0' % size, usedforsecurity=False)  # as `git hash-object`
    with path.open('rb') as file:
        start = file.read(256)
        file.seek(0)
        while block := file.read(BLOCK):
            sha256.update(block)
            git.update(block)
    return Measured(size, sha256.hexdigest(), git.hexdigest(), start)


def fault(found: Measured, file: RemoteFile, trusted: str | None) -> str | None:
    """Describes why a file is not the expected one, or returns None if it is accepted.

    Args:
        found: size, hashes and first bytes of the file.
        file: entry of the catalog. Its hashes precede `trusted`.
        trusted: SHA-256 recorded on first use, or None.
    """
    if file.sha256:
        if found.sha256 in file.sha256:
            return None
        return f'has the SHA-256 {found.sha256}, but {" or ".join(file.sha256)} was expected (catalog of this package)'
    if file.git and found.git != file.git:
        return f'has the Git identifier {found.git}, but {file.git} was expected (catalog of this package)'
    if file.size is not None and found.size != file.size:
        return f'has {found.size:,} bytes, but {file.size:,} were expected'
    if found.size > file.limit:
        return f'has {found.size:,} bytes, but at most {file.limit:,} are accepted'
    if not file.known and (answer := _placeholder(found, file)):
        return answer
    if trusted is not None and found.sha256 != trusted:
        return f'has the SHA-256 {found.sha256}, but the file fetched first had {trusted}'
    return None


def _placeholder(found: Measured, file: RemoteFile) -> str | None:
    """Describes a file without a known hash that was sent in place of the published one, or returns None."""
    if found.size == 0:
        return 'is empty'
    if found.start.startswith(POINTER):
        return 'is a pointer of Git LFS, not the file itself'
    if found.start.removeprefix(codecs.BOM_UTF8).lstrip().lower().startswith(PAGES):
        return 'is a page, as servers send it in place of a file'
    if found.size < SMALLEST and file.name.endswith(WEIGHTS):
        return f'has {found.size:,} bytes, too few for weights'
    return None


def check(path: Path, file: RemoteFile, trusted: str | None, fix: str) -> Measured:
    """Checks a file, see `fault`. Returns its size and hashes.

    Raises:
        DownloadError: the file is not the expected one. `fix` is a sentence for the end of the message.
    """
    found = measure(path)
    wrong = fault(found, file, trusted)
    if wrong:
        raise DownloadError(f'{path} is not the expected file: it {wrong}. {fix}')
    return found
