"""Members of containers, and the rules for their names."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rass_mm.errors import DataError, clipped
from rass_mm.files.naming import MOST_BYTES
from rass_mm.files.portable import is_windows, windows_fault

MOST_NAME = 4000
"""Longest name of a member in bytes, with its folders. Linux limits paths to 4,096 bytes."""
AGAIN = 'Write the container again.'


class Member(NamedTuple):
    """File in a container.

    Args:
        container: path of the container.
        name: name of the file in the container, with slashes.
        size: size of the container in bytes.
        mtime_ns: modification time of the container.
        place: where its bytes are: offset and length in a tar file; row group and row of the group in a Parquet file.
    """

    container: Path
    name: str
    size: int
    mtime_ns: int
    place: tuple[int, int]

    def __str__(self) -> str:
        return f'{self.container}: {self.name}'

    def identity(self) -> dict[str, Any]:
        """Returns what a manifest line records of the source: if it is equal, the member is unchanged."""
        member = {'container': self.container.name, 'name': self.name, 'place': list(self.place)}
        return {'size': self.size, 'mtime_ns': self.mtime_ns, 'member': member}

    def check_unchanged(self) -> None:
        """Raises a DataError if the container is not the one that was listed."""
        try:
            status = self.container.stat()
        except OSError as error:
            raise DataError(f'{self}: the container no longer exists ({error}).') from None
        if (status.st_size, status.st_mtime_ns) != (self.size, self.mtime_ns):
            raise DataError(f'{self}: the container was changed while it was in use. Run the same command again.')


class Listing(NamedTuple):
    """Members of a container: its files by name, and the names of other entries by kind, e.g. 'links'."""

    members: Mapping[str, Member]
    left_out: Mapping[str, list[str]]


def plain_name(name: str, container: Path) -> str:
    """Returns the name of a member without empty and '.' parts.

    Raises:
        DataError: the name leads out of a folder, is empty or too long, or contains a zero byte. On Windows also: it
            is not a name there.
    """
    too_long = len(name) > MOST_NAME or len(os.fsencode(name)) > MOST_NAME
    parts = [part for part in name[:MOST_NAME].split('/') if part not in ('', '.')]
    if name.startswith('/') or '..' in parts:
        fault = "leads out of the output folder. Names must be relative and must not contain '..'"
    elif not parts or '\0' in name:
        fault = 'is not the name of a file'
    elif too_long or max(len(os.fsencode(part)) for part in parts) > MOST_BYTES:
        fault = f'is too long. File systems allow {MOST_BYTES} bytes for each part, and {MOST_NAME} are allowed in all'
    elif is_windows() and any(map(windows_fault, parts)):
        fault = next(filter(None, map(windows_fault, parts)))
    else:
        return '/'.join(parts)
    raise DataError(f'{container}: the name {clipped(repr(name[:100]), 100)} of a member {fault}. {AGAIN}')


def add_member(members: dict[str, Member], member: Member) -> None:
    """Adds a member to those of its container.

    Raises:
        DataError: the container has another one of this name.
    """
    if members.setdefault(member.name, member) is not member:
        raise DataError(
            f'{member.container} has two members with the name {member.name!r}, but names must be unique. {AGAIN}'
        )
