"""Input and output files of a restoration, checked before anything is loaded."""

import glob
import logging
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rass_mm.errors import DataError
from rass_mm.files.images import READABLE, WRITABLE, output_suffix

logger = logging.getLogger(__name__)

WILDCARD = re.compile(r'[*?[]')


class Task(NamedTuple):
    """One image: its name relative to the source root, its name relative to the output folder, and both paths."""

    name: str
    output: str
    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """Images to restore.

    Args:
        root: folder that the image names are relative to.
        out: folder that the output names are relative to.
        tasks: the images, sorted by name.
        single: whether the source is a single file, given by name.
    """

    root: Path
    out: Path
    tasks: list[Task]
    single: bool = False


def plan_files(source: str | os.PathLike, out: str | os.PathLike) -> Plan:
    """Lists the images and their outputs, and creates the output folders.

    Args:
        source: an image; a folder, searched with its subfolders; or a pattern such as `photos/**/*.jpg`. With a
            pattern, outputs keep the part of the path from its first wildcard on.
        out: a folder. For a single image it is a file name if it has a suffix and is not an existing folder.

    Raises:
        DataError: no image was found, two of them have the same output, or an output would overwrite a source; `out`
            is inside the searched folder, is a file, or is not writable.
    """
    found = _single(Path(source), out) if Path(source).is_file() else _several(Path(source), Path(out))
    _refuse_overwriting(found.tasks)
    for folder in sorted({task.target.parent for task in found.tasks} | {found.out}):
        _make_writable(folder)
    changed = [task for task in found.tasks if Path(task.name).suffix != Path(task.output).suffix]
    if changed and not found.single:
        logger.warning(
            'File types that cannot be written become PNG: %d images, e.g. %s', len(changed), changed[0].name
        )
    return found


def _single(source: Path, out: str | os.PathLike) -> Plan:
    target = Path(out)
    if target.is_dir() or os.fspath(out).endswith(os.sep) or not target.suffix:
        task = _task(source.parent, target, source.name)
        if Path(task.output).suffix != source.suffix:
            logger.warning('%s is written as %s: its own file type cannot be written', source, task.target)
        return Plan(source.parent, target, [task], single=True)
    if target.suffix.lower() not in WRITABLE:
        raise DataError(f'{target}: cannot write images of type {target.suffix}. Use one of {", ".join(WRITABLE)}.')
    return Plan(source.parent, target.parent, [Task(source.name, target.name, source, target)], single=True)


def _several(source: Path, out: Path) -> Plan:
    if source.is_dir():
        root, deep, paths = source, True, source.rglob('*')
    elif WILDCARD.search(str(source)):
        root, deep = _fixed_part(source), '**' in source.parts
        paths = map(Path, glob.iglob(str(source), recursive=True))
    else:
        raise DataError(f'{source} does not exist. Pass an image, a folder of images, or a pattern in quotes.')
    names = _image_names(root, paths)
    if not names:
        raise DataError(f'No images found in {source}; searched for {", ".join(READABLE)}.')
    if out.resolve() == root.resolve() or (deep and root.resolve() in out.resolve().parents):
        raise DataError(
            f'The output folder {out} is in the image folder {root}, so the next run would restore the restored images '
            'again. Choose an output folder outside it.'
        )
    return Plan(root, out, [_task(root, out, name) for name in names])


def _fixed_part(pattern: Path) -> Path:
    """Returns the folders of a pattern before its first wildcard."""
    first = next(number for number, part in enumerate(pattern.parts) if WILDCARD.search(part))
    return Path(*pattern.parts[:first])


def _image_names(root: Path, paths: Iterable[Path]) -> list[str]:
    images = (path for path in paths if path.suffix.lower() in READABLE and not path.name.startswith('.'))
    return sorted({path.relative_to(root).as_posix() for path in images if path.is_file()})


def _task(root: Path, out: Path, name: str) -> Task:
    output = Path(name).with_suffix(output_suffix(Path(name).suffix)).as_posix()
    return Task(name, output, root / name, out / output)


def _refuse_overwriting(tasks: list[Task]) -> None:
    owners = {}
    sources = {task.source.resolve() for task in tasks}
    for task in tasks:
        other = owners.setdefault(task.output, task)
        if other is not task:
            raise DataError(f'{other.source} and {task.source} would both become {task.target}. Rename one of them.')
        if task.target.resolve() in sources:
            raise DataError(f'{task.target} is one of the images to restore. Choose another output.')


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f'Cannot write to the output folder {folder}: {error}. Choose another one.') from error
