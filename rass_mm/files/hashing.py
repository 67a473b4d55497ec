"""Hashes of files: of all bytes, or of enough of them to tell large weights apart quickly."""

import hashlib
from pathlib import Path
from typing import Any

BLOCK = SAMPLE = 2**20


def update_whole(digest: Any, path: Path) -> None:
    """Adds all bytes of a file to a hashlib digest, block by block."""
    with path.open('rb') as file:
        while block := file.read(BLOCK):
            digest.update(block)


def update_sampled(digest: Any, path: Path) -> None:
    """Adds the first and the last part of a file to a hashlib digest; the end of a .pth lists all its checksums."""
    with path.open('rb') as file:
        digest.update(file.read(SAMPLE))
        file.seek(max(path.stat().st_size - SAMPLE, 0))
        digest.update(file.read(SAMPLE))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    update_whole(digest, path)
    return digest.hexdigest()
