"""Source of files: a folder that was copied by hand."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from rass_mm.errors import DownloadError
from rass_mm.fetching.places import inside, staged, state_file, writable
from rass_mm.files.hashing import BLOCK
from rass_mm_cli.catalog import Entry, RemoteFile


def copy_file(source: Path, file: RemoteFile, partial: Path, report: Callable[[int], None]) -> Path:
    """Copies a file to `partial`, which is returned.

    Args:
        source: the file.
        file: entry of the catalog.
        partial: path of the copy; an existing file is replaced.
        report: called with the number of bytes that were copied so far.

    Raises:
        DownloadError: the file is too large.
    """
    with source.open('rb') as content, os.fdopen(writable(partial), 'wb') as target:
        state_file(partial).unlink(missing_ok=True)  # a download must not resume the copy
        target.truncate()
        done = 0
        while block := content.read(BLOCK):
            done += len(block)
            if done > file.limit:
                target.truncate(0)
                raise DownloadError(f'{source} has more than {file.limit:,} bytes. It is not {file.name}.')
            target.write(block)
            report(done)
    return partial


class CopySource:
    """Copies files from a folder, or the only file of an entry from a file of any name.

    Args:
        entry: the entry.
        path: the folder or file.

    Raises:
        DownloadError: the path does not exist, or is a file although the entry has several files.
    """

    def __init__(self, entry: Entry, path: Path) -> None:
        self.entry, self.path = entry, path
        if not path.exists():
            raise DownloadError(f'{path} does not exist. Pass the folder that holds the files of {entry.name}.')
        if not path.is_dir() and len(entry.files) > 1:
            raise DownloadError(f'{path} is a file, but {entry.name} has {len(entry.files)} files. Pass their folder.')

    def __str__(self) -> str:
        return f'copy of {self.path}'

    def obtain(self, file: RemoteFile, folder: Path, report: Callable[[int], None]) -> Path:
        """Copies a file to the staging folder and returns its path there.

        Args:
            file: the file.
            folder: the target folder.
            report: called with the number of bytes that were copied so far.

        Raises:
            DownloadError: the file is missing, is not a file, lies outside the source folder, or is too large.
        """
        return copy_file(self._opened(file), file, staged(folder, file.name), report)

    def discard(self, file: RemoteFile, folder: Path) -> None:
        """Removes the copy of a file that is not the expected one."""
        staged(folder, file.name).unlink(missing_ok=True)

    def _opened(self, file: RemoteFile) -> Path:
        """Returns the path of a file in the source, after checks."""
        if not self.path.is_dir():
            path = self.path
        else:
            path = inside(self.path, file.name)
            if not path.exists():
                raise DownloadError(f'{path} does not exist. {self.entry.name} needs this file.')
            if not path.resolve().is_relative_to(self.path.resolve()):
                raise DownloadError(
                    f'{path} is a link that leads out of {self.path}. Copy the files themselves, e.g. with cp -rL.'
                )
        if not stat.S_ISREG(path.stat().st_mode):
            raise DownloadError(f'{path} is not a file, but a folder, a pipe or a device.')
        return path
