"""SHA-256 of files, of JSON values, and of samples of files that are too large to read completely."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rass_mm.errors import ConfigError
from rass_mm.files.walking import walk

BLOCK = SAMPLE = 2**20
IDENTIFYING = ('.safetensors', '.json')
"""Suffixes of the files that identify a folder of weights."""


def update_whole(digest: Any, path: Path) -> None:
    """Updates a hashlib digest with all bytes of a file, block by block."""
    with path.open('rb') as file:
        while block := file.read(BLOCK):
            digest.update(block)


def update_sampled(digest: Any, path: Path) -> None:
    """Updates a hashlib digest with the first and the last MiB of a file.

    The end of a `.pth` file lists the checksums of all its entries.
    """
    with path.open('rb') as file:
        digest.update(file.read(SAMPLE))
        file.seek(max(path.stat().st_size - SAMPLE, 0))
        digest.update(file.read(SAMPLE))


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    update_whole(digest, path)
    return digest.hexdigest()


def files_sha256(files: Sequence[Path]) -> str:
    """Returns the SHA-256 over the names, sizes and contents of files, in the given order, in hex.

    Raises:
        ConfigError: the list is empty.
    """
    if not files:
        raise ConfigError('The list of files is empty, so its hash would identify nothing. Pass at least one file.')
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(f'{file.name}:{file.stat().st_size}:'))
        update_whole(digest, file)
    return digest.hexdigest()


def json_sha256(value: Any) -> str:
    """Returns the SHA-256 of a value as JSON with sorted keys, in hex. Tuples are treated as lists."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def content_hash(path: Path | None) -> Any:
    """Returns a short hash that identifies a weights file, or the configs and weights of a folder.

    The hash has 16 hex digits. It covers the size and the first and last MiB of each file and, in a folder, the
    relative path. This is fast and sufficient to distinguish trained weights. Links to files and folders are followed.
    For None, returns None.

    Raises:
        ConfigError: the file or folder does not exist, is empty, or contains a broken link instead of a file.
    """
    if path is None:
        return None
    if not path.exists():
        raise ConfigError(f'{path} does not exist. Pass the file or folder that contains the weights.')
    files = [path] if path.is_file() else sorted(file for file in walk(path) if file.suffix in IDENTIFYING)
    _check_contents(path, files)
    digest = hashlib.sha256()
    for file in files:
        name = '' if path.is_file() else file.relative_to(path).as_posix()  # renaming an adapter does not change it
        digest.update(os.fsencode(f'{name}:{file.stat().st_size}:'))
        update_sampled(digest, file)
    return digest.hexdigest()[:16]


def _check_contents(path: Path, files: Sequence[Path]) -> None:
    """Raises a ConfigError if a path is a broken link or not a regular file, or if all files are empty."""
    broken = [file for file in files if not file.is_file()]
    if broken:
        raise ConfigError(f'{broken[0]} is a broken link or not a file. Restore the original file.')
    if not any(file.stat().st_size for file in files):
        contents = 'is empty' if path.is_file() else f'contains no weights or configs ({", ".join(IDENTIFYING)})'
        raise ConfigError(f'{path} {contents}. Pass the file or folder that contains the weights.')
