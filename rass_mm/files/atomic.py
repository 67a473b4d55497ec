"""Atomic writes: a file is written under a temporary name next to the target and then renamed.

The target is therefore either complete or absent. A killed process leaves its temporary file behind. The file is locked
while its writer runs, so other processes can tell whether it is abandoned.
"""

import errno
import glob
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from rass_mm.files.portable import replace

try:
    import fcntl
except ImportError:
    fcntl = None  # Windows does not remove files that are open

MARK = '-rass_mm-'
"""Part of every temporary name, which no file of a user has."""
LONGEST = 40
"""Maximum number of characters of the target's name in the temporary name, because file systems limit its length."""

SYSTEM_ERROR = re.compile(r'\(os error (\d+)\)')
"""End of the message of an error of the operating system in safetensors."""


@contextmanager
def system_errors(target: str | os.PathLike) -> Iterator[None]:
    """Context manager. Raises an error of the operating system in safetensors as an OSError that names `target`."""
    try:
        yield
    except SafetensorError as error:
        found = SYSTEM_ERROR.search(str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), os.fspath(target)) from error


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """Context manager. Yields a temporary path in the target's folder and renames it to `target` if no error is raised.

    An OSError without a file name, as of a write to a full disk, gets the name of the target. So does an error of the
    operating system in safetensors.

    The temporary name keeps the target's suffix, because image writers choose the format by the suffix.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _locked_file(target)
    try:
        with system_errors(target):
            yield temporary
        temporary.chmod(0o644)  # mkstemp creates private files, but data sets and checkpoints are shared
        replace(temporary, target)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a write to a full disk
            error.filename = os.fspath(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def temporary_prefix(target: Path) -> str:
    """Returns the beginning of the temporary names of a file, without the eight random characters and the suffix.

    Two files in one folder have different beginnings or suffixes, so that a temporary name tells whose it is.
    """
    stem = target.stem
    if len(stem) > LONGEST:
        digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
        stem = f'{stem[: LONGEST - len(digest) - 1]}-{digest}'
    return f'.{stem}{MARK}'


def _locked_file(target: Path) -> tuple[int | None, Path]:
    """Creates a temporary file for a target. Returns its descriptor, which holds its lock, and its path."""
    while True:
        handle, name = tempfile.mkstemp(prefix=temporary_prefix(target), suffix=target.suffix, dir=target.parent)
        if fcntl is None:
            os.close(handle)
            return None, Path(name)
        with suppress(OSError):  # without locks, no file is taken for abandoned
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another process has removed the file before it was locked


def remove_abandoned(temporary: Path) -> None:
    """Removes a temporary file of `atomic_path`, unless the process that writes it is still running."""
    with suppress(OSError):
        if fcntl is not None:
            handle = os.open(temporary, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(handle)
        temporary.unlink()


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
        with system_errors(target):
            yield inner
            usual = inner.stat().st_mode & 0o666  # what the umask permits
            for file in inner.rglob('*'):
                if file.is_file() and not file.is_symlink():
                    file.chmod(usual)  # safetensors writes private files, but packs and conversions are shared
        replace(inner, target)


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


def write_bytes(target: str | os.PathLike, data: bytes | memoryview) -> None:
    """Writes `data` to `target` atomically: a reader sees the old file or the new one, never a partial file."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: str | os.PathLike, text: str) -> None:
    """Writes `text` to `target` atomically, as UTF-8. File names in the text that are not UTF-8 keep their bytes."""
    write_bytes(target, text.encode('utf-8', 'surrogateescape'))
