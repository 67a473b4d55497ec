"""Temporary folder of the app, with all uploads and results. It is removed when the app ends."""

import logging
import math
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rass_mm.errors import DataError
from rass_mm.files.locks import LOCK, held, holder_of
from rass_mm.files.naming import shortened

logger = logging.getLogger(__name__)

PREFIX = 'rass-mm-app-'
CLOCK = 1.0
"""Seconds by which the times of files may lag behind the clock."""


class Workspace:
    """Temporary folder of the app.

    Args:
        folder: the folder.
        most: largest number of bytes in all files.
    """

    def __init__(self, folder: Path, most: float = math.inf) -> None:
        self.folder, self.most = folder, most
        self.reserved, self.lock, self.closed = 0, threading.Lock(), False
        self.kept: set[Path] = set()
        self.starts: list[float] = []
        self.inputs: list[Path] = []

    def new(self, stem: str, ending: str) -> Path:
        """Returns the path of a new file, in a folder of its own whose name cannot be guessed.

        Args:
            stem: beginning of the name; shortened if it is too long.
            ending: end of the name, e.g. '_restored.png'.

        Raises:
            DataError: the workspace is full or closed.
        """
        self.check_open()
        with self.lock:
            self._check_space(0)
        place = self.folder / secrets.token_hex(16)
        place.mkdir()
        return place / shortened(stem.lstrip('.'), ending)  # hidden files are not served

    def reserve(self, size: int) -> None:
        """Reserves space for an upload, until `release`. Other files may use it meanwhile, see `new`.

        Args:
            size: number of bytes.

        Raises:
            DataError: there would be more than the largest number of bytes.
        """
        with self.lock:
            self._check_space(self.reserved + size)
            self.reserved += size

    def _check_space(self, size: int) -> None:
        if self.size() + size > self.most:
            raise DataError(
                f'The app stores at most {self.most / 10**6:,.0f} MB of uploads and results, and these are stored '
                'already. Old ones are removed after a while. Try again later.'
            )

    def check_open(self) -> None:
        """Raises a DataError if the app ends."""
        if self.closed:
            raise DataError('The app is being stopped.')

    def close(self) -> None:
        """Removes all files. There are no new ones afterwards."""
        self.closed = True
        _empty(self.folder)

    def release(self, size: int) -> None:
        """Ends a reservation of some bytes."""
        with self.lock:
            self.reserved -= size

    def keep(self) -> None:
        """Excludes all present files from `sweep`, because the page refers to them."""
        self.kept = set(self._files())

    @contextmanager
    def used(self, files: Sequence[Path]) -> Iterator[None]:
        """Context manager for a job. Its files count as new when it starts and when it ends.

        `sweep` keeps these files, and all that are written while the job runs.

        Args:
            files: the inputs; results that are added to this list count as new when the job ends.
        """
        start = time.time() - CLOCK
        inputs = list(files)
        self.starts.append(start)
        self.inputs += inputs
        try:
            self._renew(files)
            yield
        finally:
            self._renew(files)
            self.starts.remove(start)
            for file in inputs:
                self.inputs.remove(file)

    def discard(self, file: Path) -> None:
        """Removes a file of which there is a newer one, unless a running job reads it."""
        if file not in self.inputs and file not in self.kept and file.is_relative_to(self.folder):
            with suppress(OSError):
                file.unlink()
                file.parent.rmdir()

    def _renew(self, files: Sequence[Path]) -> None:
        for file in files:
            with suppress(OSError):
                if file.resolve().is_relative_to(self.folder):
                    os.utime(file)

    def sweep(self, age: float, waiting: float = 0) -> None:
        """Removes files that are older than `age` seconds and than all running jobs, and empty folders.

        Args:
            age: number of seconds.
            waiting: how long the first of the waiting jobs has waited, in seconds. Its files may have that age as well.
        """
        oldest = min([time.time() - age - waiting, *self.starts])
        for file in self._files():
            with suppress(OSError):
                if file not in self.kept and file.stat().st_mtime < oldest:
                    file.unlink()
        for name, _, _ in os.walk(self.folder, topdown=False):
            with suppress(OSError):
                place = Path(name)
                if place != self.folder and place.stat().st_mtime < oldest:
                    place.rmdir()  # only if it is empty

    def size(self) -> int:
        """Returns the number of bytes in all files."""
        total = 0
        for file in self._files():
            with suppress(OSError):
                total += file.stat().st_size
        return total

    def _files(self) -> list[Path]:
        found = os.walk(self.folder)  # in which folders may vanish meanwhile
        return [Path(place, name) for place, _, names in found for name in names if name != LOCK]


@contextmanager
def temporary_workspace(parent: str | os.PathLike | None = None, most: float = math.inf) -> Iterator[Workspace]:
    """Context manager. Yields a new workspace, which is removed when the block exits.

    Workspaces of apps that were killed are removed as well.

    Args:
        parent: folder of the workspace; None uses the folder for temporary files.
        most: largest number of bytes in all files.

    Raises:
        DataError: the workspace could not be removed.
    """
    parent = Path(parent or tempfile.gettempdir()).resolve()
    remove_abandoned(parent)
    workspace = Workspace(Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)), most)
    try:
        with held(workspace.folder, clean=False):
            try:
                yield workspace
            finally:
                workspace.close()
    finally:
        shutil.rmtree(workspace.folder, ignore_errors=True)
    if workspace.folder.exists():
        raise DataError(f'{workspace.folder} has uploads and results, and could not be removed. Remove it.')


def _empty(folder: Path) -> None:
    """Removes all that is in a workspace but its lock file, by which the next app finds it if this one is killed."""
    for item in folder.iterdir():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item, ignore_errors=True)
        elif item.name != LOCK:
            with suppress(OSError):
                item.unlink()


def remove_abandoned(parent: Path) -> None:
    """Removes the workspaces of this user below a folder whose app no longer runs."""
    for folder in parent.glob(f'{PREFIX}*'):
        with suppress(OSError):
            owner = folder.stat().st_uid
            user = os.getuid() if hasattr(os, 'getuid') else owner  # on Windows, the parent folder is the user's
            own = folder.is_dir() and not folder.is_symlink() and owner == user
            if own and (folder / LOCK).is_file() and holder_of(folder, LOCK) is None:
                _empty(folder)
                shutil.rmtree(folder, ignore_errors=True)
                logger.info('Removed %s of an app that was killed', folder)
