"""Search for files in folders, shared by all commands, and grouping of the files that a command leaves out."""

import fnmatch
import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rass_mm.errors import DataError

logger = logging.getLogger(__name__)

ANY_DEPTH = '**'
WILDCARD = re.compile(r'[*?[]')
LeftOut = Mapping[str, list[str]]
"""Names of files that are not used, by kind, e.g. 'files of type .txt'."""


def walk(folder: str | os.PathLike) -> Iterator[Path]:
    """Yields all files below a folder, including broken links and special files. Each folder is sorted by name.

    Links to folders are followed, as in mmseg's data sets. A folder that contains itself through a link is entered only
    once, and a warning is logged.

    Raises:
        DataError: a folder cannot be read.
    """
    yield from _below(Path(folder), ())


def _below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yields the files below a folder. `above` contains the device and the inode of each of its parent folders."""
    try:
        status = folder.stat()
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f'{folder} cannot be searched: {error.strerror}. Change its permissions, or move it elsewhere.'
        ) from error
    identity = status.st_dev, status.st_ino
    if identity in above:
        logger.warning('%s is a link to a folder that contains it; it is not searched again', folder)
        return
    for entry in entries:
        path = folder / entry.name
        if os.path.isdir(path) if entry.is_symlink() else entry.is_dir(follow_symlinks=False):
            yield from _below(path, (*above, identity))
        else:
            yield path


def matching(pattern: Path) -> Iterator[Path]:
    """Yields the paths that match a pattern, like `glob.glob` with `recursive=True`.

    If the pattern contains `**`, only files are yielded, and the folders are searched by `walk`.
    """
    parts = pattern.parts
    if ANY_DEPTH not in parts:
        yield from map(Path, glob.iglob(str(pattern)))
        return
    first = parts.index(ANY_DEPTH)
    for folder in sorted(glob.glob(str(Path(*parts[:first])))) if first else ['.']:
        if os.path.isdir(folder):
            below = (path for path in walk(folder) if _matches(path.relative_to(folder).parts, parts[first:]))
            yield from below


def is_pattern(source: Path) -> bool:
    """Returns whether a source is a pattern and not a file or folder whose name contains wildcards."""
    return WILDCARD.search(str(source)) is not None and not source.exists()


def fixed_part(pattern: Path) -> Path:
    """Returns the part of a pattern before the first folder or file name with a wildcard."""
    first = next(number for number, part in enumerate(pattern.parts) if WILDCARD.search(part))
    return Path(*pattern.parts[:first])


def searched(source: Path) -> tuple[Path, bool, Iterator[Path]] | None:
    """Returns the root of a folder or pattern, whether its subfolders are searched, and its files; None for others."""
    if source.is_dir():
        return source, True, walk(source)
    if is_pattern(source):
        return fixed_part(source), ANY_DEPTH in source.parts, matching(source)
    return None


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Checks whether the parts of a path match those of a pattern. As in a shell, `*` does not match hidden names."""
    if not pattern:
        return not names
    if pattern[0] == ANY_DEPTH:
        if not pattern[1:]:
            return not any(name.startswith('.') for name in names)
        hidden = next((number for number, name in enumerate(names) if name.startswith('.')), len(names))
        return any(_matches(names[skipped:], pattern[1:]) for skipped in range(hidden + 1))
    if not names or (names[0].startswith('.') and not pattern[0].startswith('.')):
        return False
    return fnmatch.fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def chosen_files(root: Path, paths: Iterable[Path], suffixes: Sequence[str]) -> tuple[list[str], LeftOut]:
    """Returns the names of the files that have one of the suffixes, and the names of all other files by kind.

    Args:
        root: the folder that the names are relative to.
        paths: files below the root; folders among them are ignored.
        suffixes: endings of the files to use, in lower case.
    """
    names: set[str] = set()
    others: dict[str, set[str]] = {}
    for path in paths:
        if path.is_dir():
            continue
        kind = kind_left_out(path, suffixes)
        (names if kind is None else others.setdefault(kind, set())).add(path.relative_to(root).as_posix())
    return sorted(names), {kind: sorted(found) for kind, found in sorted(others.items())}


def kind_left_out(path: Path, suffixes: Sequence[str]) -> str | None:
    """Returns the kind of a file that is not used, e.g. 'hidden files', or None if it has one of the suffixes."""
    if path.name.startswith('.'):
        return 'hidden files'
    if not path.is_file():
        return 'broken links or special files'
    if path.name.lower().endswith(tuple(suffixes)):
        return None
    return f'files of type {path.suffix.lower()}' if path.suffix else 'files without a suffix'


def merged(parts: Iterable[LeftOut]) -> dict[str, list[str]]:
    """Merges the files that several searches left out into one dict from kind to names."""
    together: dict[str, list[str]] = {}
    for part in parts:
        for kind, names in part.items():
            together.setdefault(kind, []).extend(names)
    return together


def described_left_out(left_out: LeftOut) -> list[str]:
    """Returns one line for each kind of file that is not used, with the number of files and the first name."""
    return [f'Left out: {kind} ({len(names)}), e.g. {names[0]}' for kind, names in left_out.items()]
