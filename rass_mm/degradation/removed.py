"""Recorded images that a run of `build_lq_dataset` does not have: they must have been removed from the source."""

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rass_mm.errors import DataError
from rass_mm.files.containers.kinds import is_container
from rass_mm.files.manifest import Record
from rass_mm.files.walking import walk
from rass_mm.jobs.part import Part

logger = logging.getLogger(__name__)


def removed_images(part: Part, made: dict[str, Record], images: Collection[str], sources: Iterable[Any]) -> set[str]:
    """Returns the recorded images that this run does not have, and logs a warning about them.

    Args:
        part: the part of the job that this run does.
        made: the recorded lines by image name.
        images: names of the images of this run.
        sources: folders or containers that this run and earlier ones have in their headers. Other values are ignored.

    Raises:
        DataError: the source of one of them still exists, so the copy was made from other images, e.g. with another
            pattern. Otherwise their copies would be lost.
    """
    lines = {image: line for image, line in made.items() if image not in images}
    if not lines:
        return set()
    roots = {Path(source) for source in sources if isinstance(source, str)}
    members = {image: _member(line) for image, line in lines.items() if 'member' in line}
    containers = {_container(path) for root in roots for path in _containers(root)} if members else set()
    for image in sorted(lines):
        if members[image] in containers if image in members else any((root / image).is_file() for root in roots):
            raise DataError(
                f'{part.out} was made from other images of this source: {image} still exists, but is not among the '
                'images of this command. Choose another output folder, or give the same source as before.'
            )
    logger.warning('%d images in %s are no longer in the source, e.g. %s', len(lines), part.out, min(lines))
    return set(lines)


def _member(line: Record) -> str:
    """Returns the container of a line like `_container`. A line that is damaged has a value that no file has."""
    member = line['member']
    name = member.get('container') if isinstance(member, dict) else None
    return _identity(name, line.get('size'), line.get('mtime_ns'))


def _containers(root: Path) -> Iterable[Path]:
    return filter(is_container, walk(root) if root.is_dir() else [root])


def _container(path: Path) -> str:
    status = path.stat()
    return _identity(path.name, status.st_size, status.st_mtime_ns)


def _identity(name: Any, size: Any, mtime_ns: Any) -> str:
    return repr((name, size, mtime_ns))
