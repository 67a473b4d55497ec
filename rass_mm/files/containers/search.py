"""Search for containers and for the images in them, with the names that the same images have in a folder."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile

from rass_mm.errors import DataError
from rass_mm.files.containers.kinds import COMPRESSED, KINDS, PARQUET, is_container, list_container
from rass_mm.files.containers.members import Member
from rass_mm.files.walking import LeftOut, merged

logger = logging.getLogger(__name__)

SUFFIXES = tuple(f'.{kind}' for kind in KINDS)


def images_in(root: Path, paths: Iterable[Path], suffixes: Sequence[str]) -> tuple[dict[str, Member], LeftOut]:
    """Returns the images in containers by name, and the names of what is not used by kind.

    The name of an image is its name in its container. If an image of another container has the same name, all names
    begin with the path of their container below the root, without its suffix.

    Args:
        root: folder that contains the containers.
        paths: files below the root, of which those that are not containers are ignored.
        suffixes: endings of the members to use, in lower case.

    Raises:
        DataError: a container cannot be used, or two images would have the same name.
    """
    found, left_out = {}, []
    for path in sorted(filter(is_container, paths)):
        listed = list_container(path)
        kinds: dict[str, list[str]] = {
            kind: [f'{path}: {name}' for name in names] for kind, names in listed.left_out.items()
        }
        images = []
        for member in listed.members.values():
            kind = _kind_left_out(member.name, suffixes)
            images.append(member) if kind is None else kinds.setdefault(kind, []).append(str(member))
        found[path.relative_to(root).as_posix()] = images
        left_out.append(kinds)
    named = _named(found)
    _refuse_folders(named)
    return named, merged(left_out)


def check_names(kind: str, names: Iterable[str]) -> None:
    """Checks that a container of a kind can hold these names.

    Raises:
        DataError: a name has bytes that are not UTF-8, which Parquet does not allow.
    """
    for name in names if kind == PARQUET else ():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f'The name {name!r} is not UTF-8, so it cannot be stored in Parquet. Use --pack tar.'
            ) from None


def refuse_inside(out: Path, members: Iterable[Member]) -> None:
    """Checks that the containers of these members are not in the output folder.

    Raises:
        DataError: a container is in it.
    """
    folder = out.resolve()
    containers = {member.container for member in members}
    inside = next((path for path in sorted(containers) if folder in path.resolve().parents), None)
    if inside is not None:
        raise DataError(f'The container {inside} is in the output folder {out}. Choose another output folder.')


def refuse_collisions(out: Path, names: Iterable[str]) -> None:
    """Checks that files of these names can be written to a folder whose file system may ignore the case of letters.

    Raises:
        DataError: two names would be the same file.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name and _ignores_case(out):
            raise DataError(
                f'{other} and {name} differ in upper and lower case only, and would be the same file in {out}, whose '
                'file system ignores the case. Choose an output folder on another file system, or use --pack.'
            )


def _ignores_case(out: Path) -> bool:
    folder = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    try:
        with NamedTemporaryFile(prefix='rass_mm-case-', dir=folder) as file:
            return Path(file.name).with_name(Path(file.name).name.upper()).exists()
    except OSError:
        return False  # writing has its own errors


def _kind_left_out(name: str, suffixes: Sequence[str]) -> str | None:
    if name.rpartition('/')[2].startswith('.'):
        return 'hidden files'
    if name.lower().endswith(tuple(suffixes)):
        return None
    path = PurePosixPath(name)
    return f'files of type {path.suffix.lower()}' if path.suffix else 'files without a suffix'


def _named(found: Mapping[str, list[Member]]) -> dict[str, Member]:
    times = Counter(member.name for images in found.values() for member in images)
    repeated = next((name for name, count in times.items() if count > 1), None)
    if repeated is not None:
        logger.warning(
            'Several images of the containers are named %s, so the names of all images begin with that of their '
            'container.',
            repeated,
        )
    named: dict[str, Member] = {}
    for container, images in found.items():
        folder = f'{_without_suffix(container)}/' if repeated is not None else ''
        for member in images:
            other = named.setdefault(folder + member.name, member)
            if other is not member:
                raise DataError(
                    f'{other} and {member} would both be the image {folder}{member.name}. Rename one of the files.'
                )
    return named


def _without_suffix(container: str) -> str:
    return next(container[: -len(suffix)] for suffix in (*SUFFIXES, *COMPRESSED) if container.lower().endswith(suffix))


def _refuse_folders(named: Mapping[str, Member]) -> None:
    """Raises a DataError if the name of an image is also that of a folder of another one."""
    folders: dict[str, Member] = {}
    for name, member in named.items():
        folder = name.rpartition('/')[0]
        while folder and folder not in folders:
            folders[folder] = member
            folder = folder.rpartition('/')[0]
    folder = next((folder for folder in folders if folder in named), None)
    if folder is not None:
        raise DataError(
            f'{named[folder]} has the name of a folder in the name of {folders[folder]}. Rename one of them.'
        )
