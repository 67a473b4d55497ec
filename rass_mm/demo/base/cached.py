"""Cache of trained bases: a lock that is held while a base is trained, and copies of finished bases."""

import errno
import glob
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from typing_extensions import TypedDict

from rass_mm.errors import BaseFolderError
from rass_mm.files.atomic import MARK
from rass_mm.files.schemas import read_json

logger = logging.getLogger(__name__)


class TrainingRecord(TypedDict):
    """Content of `training.json`."""

    key: str
    losses: dict[str, float]


def read_record(file: Path) -> TrainingRecord | None:
    """Reads the `training.json` of a base. Returns None if it does not exist.

    Raises:
        BaseFolderError: the file is damaged.
    """
    if not file.exists():
        return None
    return read_json(file, TrainingRecord, f'Delete the folder {file.parent}, or choose another one.', BaseFolderError)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Context manager. Waits for the lock file of a base. Inside the block, no other command trains this base."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning('Another command is training this base. Waiting until it has finished.')
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_base(folder: Path, key: str) -> bool:
    try:
        found = read_record(folder / 'training.json')
    except BaseFolderError:
        return False
    return bool(found) and found['key'] == key


def copy_base(cached: Path, folder: Path, key: str) -> None:
    """Copies a finished base to an absent or empty folder, or keeps an identical base that another command wrote there.

    Args:
        cached: the folder of the base in the cache.
        folder: the target folder.
        key: the cache key of the base, which `training.json` contains.

    Raises:
        BaseFolderError: another command wrote other files to the folder in the meantime.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f'.{glob.escape(folder.name)}{MARK}????????'):
        shutil.rmtree(leftover, ignore_errors=True)  # of a killed command
    with tempfile.TemporaryDirectory(prefix=f'.{folder.name}{MARK}', dir=folder.parent) as temporary:
        copy = Path(temporary) / folder.name
        shutil.copytree(cached, copy, ignore=shutil.ignore_patterns('*.pt'))
        try:
            copy.rename(folder)  # replaces an empty folder
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not _is_base(folder, key):
                raise BaseFolderError(
                    f'{folder} was filled by another command while this base was trained. Choose a new folder and run '
                    'the command again; the trained base is kept in the cache.'
                ) from None
