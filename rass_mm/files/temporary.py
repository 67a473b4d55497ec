"""Folders for temporary files that are removed with their process, or later if it was killed."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # without locks, no folder is taken for abandoned


@contextmanager
def temporary_folder(prefix: str, place: Path) -> Iterator[Path]:
    """Context manager. Yields a new folder, which is locked, and removes it.

    Folders of the same prefix that killed processes have left are removed. A lock tells them from those of running
    processes, also of processes in other containers, whose numbers mean nothing here.

    Args:
        prefix: beginning of the name, before the number of the process.
        place: folder of the new folder.
    """
    name = re.compile(rf'{re.escape(prefix)}\d+-\w{{8}}')
    for old in place.iterdir():
        if name.fullmatch(old.name):
            _remove_abandoned(old)
    folder, handle = _locked(prefix, place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _locked(prefix: str, place: Path) -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f'{prefix}{os.getpid()}-', dir=place))
        if fcntl is None:
            return folder, None
        handle = os.open(folder, os.O_RDONLY)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.exists():
            return folder, handle
        os.close(handle)  # another process has removed the folder before it was locked


def _remove_abandoned(folder: Path) -> None:
    if fcntl is None or folder.is_symlink():
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
