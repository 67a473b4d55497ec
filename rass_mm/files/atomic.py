"""Atomic writes: a file is written under a temporary name next to the target and then renamed.

The target is therefore either complete or absent.
"""

import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = '-rass_mm-'
"""Part of every temporary name, which no file of a user has."""
LONGEST = 40
"""Maximum number of characters of the target's name in the temporary name, because file systems limit its length."""


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """Context manager. Yields a temporary path in the target's folder and renames it to `target` if no error is raised.

    An OSError without a file name, as of a write to a full disk, gets the name of the target.

    The temporary name keeps the target's suffix, because image writers choose the format by the suffix.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{target.stem[:LONGEST]}{MARK}', suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp creates private files, but data sets and checkpoints are shared
        os.replace(temporary, target)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a write to a full disk
            error.filename = os.fspath(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: str | os.PathLike) -> Iterator[Path]:
    """Context manager. Yields a new folder that is renamed to `target` if the block succeeds and deleted otherwise.

    `target` must not exist, or be an empty folder. Folders that killed processes left behind are removed, so the caller
    must hold a lock.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f'.{glob.escape(target.name)}{MARK}????????'):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f'.{target.name}{MARK}', dir=target.parent, ignore_cleanup_errors=True
    ) as temporary:
        inner = Path(temporary) / target.name
        inner.mkdir()
        yield inner
        os.replace(inner, target)


def temporary_names(stem: str) -> str:
    """Returns a pattern for the names of the temporary files of targets whose stem matches the pattern `stem`."""
    return f'.{stem[:LONGEST]}{MARK}????????.*'


def check_writable(target: str | os.PathLike) -> None:
    """Creates the folder of a file and checks that the file can be written, without changing the file.

    Call this function before a long computation whose result is written to the file.

    Raises:
        OSError: the folder cannot be created or written, or `target` is a folder.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    with tempfile.TemporaryFile(dir=target.parent):
        pass


def write_bytes(target: str | os.PathLike, data: bytes) -> None:
    """Writes `data` to `target` atomically: a reader sees the old file or the new one, never a partial file."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: str | os.PathLike, text: str) -> None:
    """Writes `text` to `target` atomically, as UTF-8. File names in the text that are not UTF-8 keep their bytes."""
    write_bytes(target, text.encode('utf-8', 'surrogateescape'))
