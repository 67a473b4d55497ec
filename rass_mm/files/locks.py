"""Locks of output folders: two commands never write the same results at the same time."""

import json
import logging
import os
import platform
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rass_mm.errors import DataError
from rass_mm.files.atomic import MARK, remove_abandoned

logger = logging.getLogger(__name__)

LOCK = '.rass_mm.lock'
PATIENCE = 0.2
"""Seconds in which another process that is just ending can release the lock."""
ADVICE = (
    'Two commands cannot write the same results. Wait until it has ended, stop it, or choose another output folder.'
)


@contextmanager
def held(
    folder: str | os.PathLike,
    name: str = LOCK,
    target: str | os.PathLike | None = None,
    patience: float = PATIENCE,
    clean: bool = True,
    advice: str = ADVICE,
) -> Iterator[None]:
    """Context manager. Holds the lock of an output folder, which is created if it is missing.

    Temporary files of `files.atomic` that a killed command left in the folder itself are removed, if `clean` is set.

    The operating system releases the lock of a killed process, so a lock file that stayed behind does no harm. If the
    file system has no locks, or the folder is read-only, the block runs without a lock: writes have their own errors.

    Args:
        folder: the output folder.
        name: name of the lock file; commands with different names may write to the folder at the same time.
        target: file or folder to name in the message if another process holds the lock; None names the folder.
        patience: seconds to wait for another process to release the lock.
        clean: whether to remove temporary files. It must be False if others may write to the folder at the same time.
        advice: end of the message if another process holds the lock.

    Raises:
        DataError: another process holds the lock; the message names it. Or the lock file is a link or not a file.
        OSError: a file is in the place of the folder.
    """
    folder = Path(folder)
    _check_lock_file(folder / name)
    file, new = folder / name, []
    lock = FileLock(file, timeout=patience, fallback_to_soft=False)
    try:
        new = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        record = {'process': os.getpid(), 'host': platform.node(), 'command': shlex.join(sys.argv)}
        with suppress(PermissionError):  # on Windows, a locked file cannot be written
            file.write_text(json.dumps(record), encoding='utf-8')
    except Timeout:
        raise DataError(f'{target or folder} is in use by {_holder(file)}. {advice}') from None
    except (FileExistsError, NotADirectoryError):
        raise  # a file is in the place of the folder or of one of its parents
    except (OSError, NotImplementedError) as error:
        logger.debug('%s is not locked: %s', folder, error)
    if clean and lock.is_locked:
        for leftover in folder.glob(f'.*{MARK}????????.*'):
            remove_abandoned(leftover)
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                file.unlink()  # before the release: a process that opened this file finds it unlinked and tries again
            lock.release()
        for place in new:
            with suppress(OSError):
                place.rmdir()  # only if nothing was written


def _check_lock_file(file: Path) -> None:
    """Raises a DataError if the lock file is another file of the user, which the lock would overwrite."""
    with suppress(OSError):
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise DataError(
                f'{file} is a link or not a file, so it cannot be the lock of this folder. Move it elsewhere.'
            )


def held_beside(target: str | os.PathLike) -> AbstractContextManager[None]:
    """Holds the lock of a file or folder that is written in one step. The lock file is beside it; see `held`.

    Args:
        target: the file or folder. Its parent folder is created if it is missing.
    """
    target = Path(target)
    return held(target.absolute().parent, f'.{target.name}.lock', target)


def holder_of(folder: Path, name: str) -> str | None:
    """Describes the process that holds a lock of a folder, or returns None if no process holds it.

    The lock is taken for a moment, within the patience of a process that asks for it meanwhile. If the lock file of
    another user cannot be opened, its record tells of the process, which may have ended.
    """
    file = folder / name
    if not file.is_file():
        return None
    try:
        with FileLock(file, timeout=0, fallback_to_soft=False):
            return None
    except Timeout:
        return _holder(file)
    except PermissionError:
        return f'{_holder(file)}, or none: {file} cannot be opened'
    except (OSError, NotImplementedError):
        return None  # the file system has no locks


def _holder(file: Path) -> str:
    """Describes the process that holds a lock."""
    try:
        found = json.loads(file.read_text(encoding='utf-8'))
        return f'process {found["process"]} on {found["host"]} ({found["command"]})'
    except (OSError, ValueError, TypeError, KeyError):
        return 'another command'
