"""Manifests of degraded copies of image folders, and the images that an earlier run has finished."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NotRequired

from typing_extensions import TypedDict

from rass_mm.degradation.recipe import VERSIONS, Recipe
from rass_mm.degradation.removed import removed_images
from rass_mm.degradation.versions import manifest_version
from rass_mm.errors import DataError
from rass_mm.files.containers.members import Member
from rass_mm.files.containers.search import SUFFIXES
from rass_mm.files.hashing import file_sha256
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.files.manifest import (
    AGAIN,
    PARTIAL,
    Line,
    Record,
    output_state,
    read_header,
    read_manifest,
    write_manifest,
)
from rass_mm.files.schemas import FileName, checked
from rass_mm.files.verified import Verified
from rass_mm.jobs.packing import PACKED, Packer, Staged, own_packs
from rass_mm.jobs.part import Part
from rass_mm.parallel import watched

logger = logging.getLogger(__name__)

PACK = 'pack'
"""Key of the header of a copy in packs: their kind."""
EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


class CopyIdentity(TypedDict):
    """Part of the first line of the manifest of a copy that identifies its images."""

    seed: int
    fingerprint: str
    recipe: NotRequired[dict[str, Any]]
    versions: NotRequired[dict[str, Any]]


class CopyHeader(CopyIdentity):
    """First line of the manifest of a copy."""

    format: str
    suffix: str | None


class CopyLine(Line):
    """Line of a finished copy."""

    output: FileName
    seed: int
    sha256: str
    parameters: dict[str, Any]
    crc32: NotRequired[int]


class Task(NamedTuple):
    """One image to degrade, as sent to a worker."""

    source: Path
    target: Path
    image: str
    output: str
    seed: int
    recipe: Recipe
    max_pixels: int = MAX_PIXELS
    member: Member | None = None
    """The image in its container, or None. `source` is then the file into which it is extracted."""

    @property
    def origin(self) -> Path | Member:
        """The source for messages: the image, or its member of a container."""
        return self.member or self.source

    @property
    def staged(self) -> Staged:
        """The copy, which goes into a pack."""
        return Staged(self.image, (self.output,), (self.target,))


def finished_lines(
    part: Part, header: Record, tasks: list[Task], verified: Verified
) -> tuple[dict[str, dict], Packer | None]:
    """Prepares the output folder for resuming.

    Returns the manifest lines of finished images by image name, and what writes the copies to packs, or None if they
    are files. If images are left to degrade, the packer must begin with the first result: until then, Ray may not have
    started, and the packs that are made again are kept.

    Args:
        part: the part of the job that this run does.
        header: the first line of the manifest of this run.
        tasks: all images of this run.
        verified: the record of the files in the output folder, to which the files that are read are added.

    Raises:
        DataError: the folder contains a copy with other settings or of other images, or files that this run would
            overwrite.
    """
    running, pack = journal(part), header.get(PACK)
    earlier = [path for path in dict.fromkeys((part.manifest, running)) if path.exists()]
    made = {image: line for path in earlier for image, line in _read_manifest(path, header, part.settled).items()}
    if not earlier:
        _refuse_foreign(part, tasks, pack)
    sources = [header['source'], *(read_header(path).get('source') for path in earlier)]
    stale = removed_images(part, made, {task.image for task in tasks}, sources)
    part.claim(header)
    part.begin()
    packer = None if pack is None else Packer(part, pack, made, verified, running)
    if running in earlier:
        _clean(part, tasks, packer)
    lines = _whole(part, tasks, made, verified)
    if packer:
        lines = _kept(packer, lines, tasks)
    if len(lines) < len(tasks) or (packer and (packer.waiting or stale)):
        write_manifest(running, header, sorted_lines(lines))
        part.clean_staging(packer.staged() if packer else ())
        if packer and len(lines) == len(tasks):
            packer.begin()
    return lines, packer


def _refuse_foreign(part: Part, tasks: list[Task], pack: str | None) -> None:
    foreign = [task.output for task in tasks if task.target.exists()]
    foreign += [path.name for path in own_packs(part)] if pack else []
    if foreign:
        raise DataError(
            f'{part.out} contains files that this run would overwrite, e.g. {foreign[0]}, but no {part.manifest.name} '
            'that describes them. Choose an empty output folder.'
        )


def _whole(part: Part, tasks: list[Task], made: dict[str, dict], verified: Verified) -> dict[str, dict]:
    """Returns the lines of the images that need not be degraded again."""
    recorded = [(task, made[task.image]) for task in tasks if task.image in made]
    checks = ((line, _is_done(task, line, verified, part.manifest.name)) for task, line in recorded)
    watching = watched(checks, len(recorded), 'checking', 'finished images')
    return {line['image']: line for line, done in watching if done}


def _clean(part: Part, tasks: list[Task], packer: Packer | None) -> None:
    packs = () if packer is None else (packer.next,)
    part.clean((*EXTENSIONS, *SUFFIXES), [*(task.target for task in tasks), *packs])


def _kept(packer: Packer, lines: dict[str, dict], tasks: list[Task]) -> dict[str, dict]:
    """Returns the lines of the images that stay finished, which are from now on those of the packer."""
    kept = packer.kept(lines, set(packer.lines))  # also packs with images that were removed are made again
    for image in set(packer.lines) - kept:
        del packer.lines[image]
    packer.take(task.staged for task in tasks if task.image in kept)
    return packer.lines


def journal(part: Part) -> Path:
    """Returns the manifest to which finished images are added: that of a shard, or the partial manifest."""
    return part.manifest if part.shard else part.out / PARTIAL


def _is_done(task: Task, line: dict, verified: Verified, manifest: str) -> bool:
    """Returns whether an image need not be degraded again: its source and its copy are those of its manifest line.

    A file is only read if its size or its modification time has changed since it was written or read. `manifest` is the
    name for the message.

    Raises:
        DataError: the copy was replaced by another image.
    """
    if task.member is not None and not task.member.identity().items() <= line.items():
        logger.warning('The container of %s has changed. The copy %s is made again.', task.member, task.output)
        return False
    if PACKED in line:
        return _is_source_whole(task, line, verified, task.output)
    if not task.target.is_file() or not _is_source_whole(task, line, verified, task.target):
        return False
    known = line.get('crc32')
    state = verified.state_of(task.target, known, partial(output_state, task.target, known))
    if state == 'changed':
        raise DataError(
            f'{task.target} was changed after it was made, so {manifest} does not describe it. Delete it to make it '
            'again, or choose another output folder.'
        )
    if state == 'damaged':
        logger.warning('%s is damaged and is made again.', task.target)
    return state == 'whole'


def _is_source_whole(task: Task, line: dict, verified: Verified, copy: str | Path) -> bool:
    same = partial(_source_state, task.source, line['sha256'])
    if task.source.is_file() and verified.state_of(task.source, line['sha256'], same) != 'whole':
        logger.warning('%s has changed. Its copy %s is made again.', task.source, copy)
        return False
    return True


def _source_state(source: Path, digest: str) -> str:
    return 'whole' if file_sha256(source) == digest else 'changed'


def _read_manifest(path: Path, header: dict, settled: bool) -> dict[str, dict]:
    """Reads the manifest of an earlier run and returns its image lines by image name.

    `settled` is whether its settings must be those of this run.

    Raises:
        DataError: the manifest was written with other settings.
    """
    old, lines = read_manifest(path, CopyLine)
    checked(old, CopyHeader, f'{path} is not the manifest of a degraded copy, or is damaged', AGAIN)
    if settled and old.get('fingerprint') != header['fingerprint']:
        raise DataError(
            f'{path} describes a copy with {_describe(old)}, but this run has {_describe(header)} '
            '(the fingerprint covers the recipe). Choose another output folder, delete this one, or use the same '
            f'settings as before{_version_option(old, header)}.'
        )
    if settled and old.get(PACK) != header.get(PACK):
        given = [f'--pack {found[PACK]}' if PACK in found else 'files' for found in (old, header)]
        raise DataError(
            f'{path} describes a copy made with {given[0]}, but this run has {given[1]}. Choose another output folder, '
            'delete this one, or use the same setting as before.'
        )
    versions = old.get('versions')
    if versions != header['versions']:
        logger.warning('%s was written with %s. The run is resumed with %s.', path, versions, header['versions'])
    return lines


def _describe(header: dict) -> str:
    known = dict(header)
    if 'recipe' in header:
        known |= {'recipe version': manifest_version(header), 'JPEG chroma': _jpeg_chroma(header)}
    names = ('seed', 'suffix', 'recipe version', 'JPEG chroma', 'fingerprint')
    return ', '.join(f'{name} {known.get(name, "unknown")}' for name in names)


def _jpeg_chroma(header: dict) -> str:
    return header['recipe'].get('jpeg_chroma', 'smooth')  # older copies do not contain this setting


def _version_option(old: dict, header: dict) -> str:
    """Returns the options that select the recipe of an earlier copy, or '' if it is the same or unknown."""
    if 'recipe' not in old:
        return ''
    version, options = manifest_version(old), ''
    if version != manifest_version(header) and version in VERSIONS:
        options += f' --recipe-version {version}'
    if _jpeg_chroma(old) != _jpeg_chroma(header):
        options += f' --jpeg-chroma {_jpeg_chroma(old)}'
    return options and f' (rass-mm make-lq{options})'


def sorted_lines(lines: dict[str, dict]) -> list[dict]:
    """Returns the manifest lines in the order of a finished manifest."""
    return [lines[image] for image in sorted(lines)]
