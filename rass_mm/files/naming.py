"""Names of output files. They keep the folders of the sources, so sources in different folders do not collide."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from rass_mm.errors import DataError

FilePath = str | os.PathLike
MOST_BYTES = 255
"""Longest name of a file on common file systems."""


def common_root(folders: Iterable[FilePath], paths: Iterable[FilePath]) -> Path:
    """Returns the folder that output names are relative to.

    Args:
        folders: image folders of the data sets. Their common folder is the root.
        paths: all image files. If one of them is outside the root, the common folder of all files is used instead.
    """
    places = {os.path.abspath(folder) for folder in folders}
    parents = {os.path.dirname(os.path.abspath(path)) for path in paths}
    root = os.path.commonpath(places) if places else None
    if root is None or any(os.path.commonpath((root, parent)) != root for parent in parents):
        root = os.path.commonpath(parents or {os.getcwd()})
    return Path(root)


def relative_name(path: FilePath, root: FilePath, suffix: str) -> str:
    """Returns the path of a source relative to `root`, or its name if it is outside `root`, with the given suffix."""
    place = Path(os.path.abspath(path))
    inside = place.is_relative_to(root)
    return (place.relative_to(root) if inside else Path(place.name)).with_suffix(suffix).as_posix()


def shortened(stem: str, ending: str) -> str:
    """Returns a file name of at most `MOST_BYTES`. If the stem is too long, its end is replaced by a hash of it."""
    data, most = os.fsencode(stem), MOST_BYTES - len(os.fsencode(ending))
    if len(data) > most:
        digest = '-' + hashlib.sha256(data).hexdigest()[:8]
        data = data[: most - len(digest)].decode(errors='ignore').encode() + digest.encode()
    return os.fsdecode(data) + ending


def output_names(paths: Iterable[FilePath], root: FilePath, suffix: str) -> dict[str, str]:
    """Returns a dict from source path to output name, see `relative_name`.

    Raises:
        DataError: two sources have the same output name.
    """
    names, owners = {}, {}
    for path in map(os.fspath, paths):
        names[path] = relative_name(path, root, suffix)
        other = owners.setdefault(names[path], path)
        if other != path:
            raise DataError(f'{other} and {path} would both become {names[path]}. Rename one of them.')
    return names


def refuse_folder(target: FilePath, example: str) -> None:
    """Raises a DataError if a file to write is an existing folder. `example` is a file name for the message."""
    if os.path.isdir(target):
        raise DataError(f'{target} is a folder. Pass the name of a file in it, e.g. {Path(target) / example}.')


def refuse_inputs(targets: Iterable[FilePath], inputs: Iterable[FilePath], option: str) -> None:
    """Raises a DataError if a file to write is one of the inputs, even under another name or through a link.

    Args:
        targets: files to write.
        inputs: files that are read.
        option: the command-line option that sets the targets, for the message.
    """
    known: Mapping[str, FilePath] = {os.path.realpath(path): path for path in inputs}
    for target in targets:
        found = known.get(os.path.realpath(target))
        if found is not None:
            raise DataError(f'{option} would overwrite the input {found}. Choose another path.')


def linked_into(root: Path, names: Iterable[str], out: Path) -> Path | None:
    """Returns a folder below `root` that leads through a link into the output folder, or None if there is none.

    Args:
        root: the folder that the names are relative to.
        names: names of files below the root. Only the folders of these files are checked.
        out: the output folder. If the root itself is inside this folder, None is returned.
    """
    folder = out.resolve()
    if folder in root.resolve().parents:
        return None
    places = sorted({(root / name).parent for name in names})
    return next((place for place in places if place.resolve().is_relative_to(folder)), None)
