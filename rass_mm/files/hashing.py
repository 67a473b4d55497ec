"""SHA-256 of files, of JSON values, and of samples of files that are too large to read completely."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rass_mm.errors import ConfigError

BLOCK = SAMPLE = 2**20


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
    """Returns the SHA-256 over the names, sizes and contents of files, in the given order, in hex."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f'{file.name}:{file.stat().st_size}:'.encode())
        update_whole(digest, file)
    return digest.hexdigest()


def json_sha256(value: Any) -> str:
    """Returns the SHA-256 of a value as JSON with sorted keys, in hex. Tuples are treated as lists."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def content_hash(path: Path | None) -> Any:
    """Returns a short hash that identifies a weights file, or the configs and weights of a folder.

    The hash covers the name, the size, and the first and last MiB of each file. This is fast and sufficient to
    distinguish trained weights. For None, returns None.

    Raises:
        ConfigError: the file or folder does not exist.
    """
    if path is None:
        return None
    if not path.exists():
        raise ConfigError(f'{path} does not exist. Pass the file or folder that contains the weights.')
    files = [path] if path.is_file() else sorted(file for file in path.rglob('*') if _is_weights_or_config(file))
    digest = hashlib.sha256()
    for file in files:
        name = '' if path.is_file() else file.relative_to(path).as_posix()  # renaming an adapter does not change it
        digest.update(f'{name}:{file.stat().st_size}:'.encode())
        update_sampled(digest, file)
    return digest.hexdigest()[:16]


def _is_weights_or_config(path: Path) -> bool:
    return path.suffix in ('.safetensors', '.json') and path.is_file()
