"""Sizes and modification times of files whose contents were compared with a manifest, so that they are not read again.

They are recorded in a hidden file beside the manifest. The manifests of two runs with the same settings are equal, but
modification times never are.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from typing_extensions import TypedDict

from rass_mm.errors import DataError
from rass_mm.files.atomic import write_text
from rass_mm.files.manifest import append_line, parsed
from rass_mm.files.regular import is_special
from rass_mm.files.schemas import FileName, checked

logger = logging.getLogger(__name__)

VERIFIED = '.rass_mm.verified.jsonl'
Checksum = int | str | None
"""Checksum of a file in a manifest line. None is the value of lines without one."""
State = tuple[int, int]
"""Size of a file in bytes, and its modification time in nanoseconds."""


class VerifiedLine(TypedDict):
    """Line of a file whose contents were compared with its checksum."""

    file: FileName
    size: int
    mtime_ns: int
    checksum: int | str | None


class Verified:
    """Record of the files of a job that were compared with its manifest.

    A file that still has the recorded size and modification time counts as unchanged, as in rsync and make. Without a
    record, or if its line is damaged, the file is read.

    Args:
        folder: the output folder, whose lock must be held. Names of files in the folder are recorded relative to it, so
            that the folder can be moved; names of other files are absolute.
        name: name of the record. Each run that writes to the folder at the same time has a record of its own.
    """

    def __init__(self, folder: Path, name: str = VERIFIED) -> None:
        self.folder, self.path = folder, folder / name
        self.writable = True
        self.known: dict[str, tuple[int, int, Checksum]] = {}
        if is_special(self.path):
            self._disable('not a file')
            return
        try:
            written = self.path.stat().st_mtime_ns
            lines = self.path.read_text(encoding='utf-8', errors='replace').splitlines()
        except OSError:
            return
        for line in lines:
            self._take(line, written)
        if len(self.known) < len(lines):
            self._write(self._rewrite)

    def _take(self, line: str, written: int) -> None:
        try:
            found = checked(parsed(line), VerifiedLine, VERIFIED, 'The file is read')
        except DataError:
            return  # a killed command left an incomplete line
        self.known.pop(found['file'], None)  # replaced by this line
        if found['mtime_ns'] < written:  # later changes within the resolution of the clock would not be noticed
            self.known[found['file']] = (found['size'], found['mtime_ns'], found['checksum'])

    def state_of(self, path: Path, checksum: Checksum, compare: Callable[[], str]) -> str:
        """Returns 'whole' if a file is unchanged since it was compared with its checksum, else the result of `compare`.

        Args:
            path: the file.
            checksum: its checksum in the manifest.
            compare: function that reads the file and returns 'whole' if it has this checksum.
        """
        try:
            state = file_state(path)  # before the file is read
        except OSError:
            return compare()
        if self.known.get(self._name(path)) == (*state, checksum):
            return 'whole'
        found = compare()
        if found == 'whole':
            self.add(path, state, checksum)
        return found

    def add(self, path: Path, state: State, checksum: Checksum) -> None:
        """Records a file that had this state when its checksum was computed."""
        name = self._name(path)
        self.known[name] = (*state, checksum)
        self._write(lambda: append_line(self.path, _entry(name, self.known[name])))

    def include(self, others: Iterable['Verified']) -> None:
        """Adds the files of other records of the same folder."""
        for other in others:
            self.known.update(other.known)
        self._write(self._rewrite)

    def _rewrite(self) -> None:
        write_text(self.path, ''.join(_line(*entry) for entry in self.known.items()))

    def _name(self, path: Path) -> str:
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else os.path.abspath(path)

    def _write(self, write: Callable[[], None]) -> None:
        """Writes to the record. An error is a warning, because without the record, files are only read again."""
        try:
            if self.writable:
                write()
        except OSError as error:
            self._disable(error.strerror)

    def _disable(self, reason: str | None) -> None:
        self.writable = False
        logger.warning('%s cannot be written (%s). The next run reads all files again.', self.path, reason)


def file_state(path: Path) -> State:
    """Returns the size and the modification time of a file.

    Raises:
        OSError: the file does not exist or cannot be accessed.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _entry(name: str, known: tuple[int, int, Checksum]) -> VerifiedLine:
    return {'file': name, 'size': known[0], 'mtime_ns': known[1], 'checksum': known[2]}


def _line(name: str, known: tuple[int, int, Checksum]) -> str:
    return json.dumps(_entry(name, known)) + '\n'
