"""Kinds of containers by suffix. The library of a kind is imported only when it is used."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rass_mm.errors import DataError
from rass_mm.files.atomic import atomic_path
from rass_mm.files.containers.members import Listing, Member
from rass_mm.files.optional import import_optional

TAR, PARQUET = 'tar', 'parquet'
KINDS = (TAR, PARQUET)
COMPRESSED = ('.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tar.xz', '.txz', '.tar.zst', '.tzst')
"""Endings of compressed tar files, which are refused with the reason."""


class Kind(Protocol):
    """Interface of the module of a kind."""

    def listing(self, path: Path) -> Listing:
        """Lists the members of a container."""

    def read(self, member: Member) -> bytes:
        """Returns the bytes of a member."""

    def write(self, path: Path, files: Iterable[tuple[str, Path]]) -> None:
        """Writes files into a new container."""


def is_container(path: Path) -> bool:
    """Returns whether a file is taken for a container, by its suffix."""
    return path.name.lower().endswith((*(f'.{kind}' for kind in KINDS), *COMPRESSED)) and path.is_file()


def kind_module(kind: str) -> Kind:
    """Imports the module of a kind, one of `KINDS`.

    Raises:
        InstallationError: a library is not installed or cannot be imported.
    """
    return import_optional(f'rass_mm.files.containers.{kind}', f'A .{kind} file', 'ray')


def _module_of(path: Path) -> Kind:
    return kind_module(PARQUET if path.name.lower().endswith(f'.{PARQUET}') else TAR)


def list_container(path: Path) -> Listing:
    """Lists the members of a container.

    Raises:
        DataError: the container cannot be used.
        InstallationError: the library for its kind is missing.
    """
    try:
        return _module_of(path).listing(path)
    except OSError as error:
        raise DataError(f'{path} cannot be read ({error.strerror}).') from None


def read_member(member: Member) -> bytes:
    """Returns the bytes of a member.

    Raises:
        DataError: the container has changed, is damaged or cannot be read.
        InstallationError: the library for its kind is missing.
    """
    member.check_unchanged()
    return _module_of(member.container).read(member)


def write_container(path: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Writes files into a container, atomically and sorted by name. The suffix of the path is the kind.

    Args:
        path: the container.
        files: names in the container, and the files.

    Raises:
        OSError: a file cannot be read, or the container cannot be written.
    """
    with atomic_path(path) as temporary:
        _module_of(path).write(temporary, sorted(files))


@contextmanager
def extracted(member: Member | None, target: Path) -> Iterator[Path]:
    """Context manager. Yields a file with the bytes of a member, which is removed after the block.

    Its name is new: processes of a pool may extract the same member at the same time.

    Args:
        member: the member. None yields `target` itself.
        target: path whose folder and suffix the file gets.

    Raises:
        DataError: see `read_member`.
        OSError: the file cannot be written.
    """
    if member is None:
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    data = read_member(member)
    descriptor, name = tempfile.mkstemp(target.suffix, 'image-', target.parent)
    try:
        with open(descriptor, 'wb') as file:
            file.write(data)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
