"""Paths of files inside the target folder. No path leads out of it, also not through links."""

import os
import stat
from pathlib import Path, PurePosixPath

from rass_mm.errors import DownloadError

STAGING = '.fetch'
"""Folder inside the target folder for files that are not complete or not checked."""


def inside(folder: Path, name: str) -> Path:
    """Returns the path of a file in a folder.

    Args:
        folder: the folder, which may itself be a link.
        name: relative path with `/`.

    Raises:
        DownloadError: the path leads out of the folder: by its name, or because one of its folders is a link.
    """
    parts = PurePosixPath(name)
    if parts.is_absolute() or not parts.parts or '..' in parts.parts or '\\' in name or ':' in name:
        raise DownloadError(f'{name!r} is not a path inside a folder. Nothing was written.')
    path = folder / name
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise DownloadError(f'{path.parent} is a link that leads out of {folder}. Remove the link, or choose --to.')
    return path


def writable(path: Path) -> int:
    """Opens a file for reading and writing without following a link, and creates it if it is missing.

    Raises:
        DownloadError: the path is a link, has several names, or is not a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, 'O_NOFOLLOW', 0) | getattr(os, 'O_BINARY', 0)
    refusal = DownloadError(f'{path} is a link or not a file. Remove it, and run the same command again.')
    if path.is_symlink():
        raise refusal
    handle = os.open(path, flags | getattr(os, 'O_NONBLOCK', 0), 0o644)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(handle)
        raise refusal
    return handle


def staged(folder: Path, name: str) -> Path:
    """Returns the path of the partial file of a file."""
    return inside(folder, f'{STAGING}/{name.replace("/", "__")}.partial')


def state_file(partial: Path) -> Path:
    """Returns the path of the origin of a partial file, which a download writes to resume it."""
    return partial.with_name(f'{partial.name}.json')
