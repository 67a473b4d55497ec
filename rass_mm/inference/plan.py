"""Plans the input and output files of a job on images, and checks them before any model is loaded."""

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from rass_mm.errors import DataError
from rass_mm.files.containers.kinds import is_container
from rass_mm.files.containers.members import Member
from rass_mm.files.containers.search import check_names, images_in, refuse_collisions, refuse_inside
from rass_mm.files.images import READABLE, WRITABLE, output_suffix
from rass_mm.files.naming import linked_into
from rass_mm.files.walking import LeftOut, chosen_files, described_left_out, merged, searched
from rass_mm.jobs.packing import Staged
from rass_mm.jobs.part import Part
from rass_mm.jobs.shard import Shard

logger = logging.getLogger(__name__)

Source = str | os.PathLike
Outputs = Callable[[str], Sequence[str]]
"""Maps the name of an image to the names of its outputs, relative to the output folder, with the main output first."""


class Task(NamedTuple):
    """Input and output paths of one image.

    Args:
        name: path of the image relative to the source root.
        output: path of the main output relative to the output folder.
        source: path of the image.
        target: path of the main output.
        others: paths of further outputs.
        member: the image in its container, or None. `source` is then the file into which it is extracted.
        packed: names of all outputs in a pack; () for outputs that stay files.
    """

    name: str
    output: str
    source: Path
    target: Path
    others: tuple[Path, ...] = ()
    member: Member | None = None
    packed: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[Path, ...]:
        """Paths of all outputs, the main one first."""
        return (self.target, *self.others)

    @property
    def origin(self) -> Path | Member:
        """The source for messages: the image, or its member of a container."""
        return self.member or self.source

    @property
    def place(self) -> tuple[str, tuple[int, int]]:
        """Key that sorts images in the order in which their containers are read. It is the same for all files."""
        return (str(self.member.container), self.member.place) if self.member else ('', (0, 0))

    @property
    def staged(self) -> Staged:
        """The outputs of an image that go into a pack."""
        return Staged(self.name, self.packed, self.targets)


@dataclass(frozen=True)
class Plan:
    """Images to process, with their outputs.

    Args:
        roots: folders that the image names are relative to.
        out: folder that the output names are relative to.
        tasks: the images, sorted by name.
        single: whether the source is the name of a single file.
        left_out: files that are not images, by kind, e.g. 'files of type .txt'.
        pack: kind of the containers for the outputs, one of `rass_mm.files.containers.kinds.KINDS`; None for files.
    """

    roots: tuple[Path, ...]
    out: Path
    tasks: list[Task]
    single: bool = False
    left_out: LeftOut = field(default_factory=dict)
    pack: str | None = None

    @property
    def source(self) -> str | list[str]:
        """The absolute path of the root, or a sorted list of paths if there are several roots."""
        roots = sorted({str(root.resolve()) for root in self.roots})
        return roots[0] if len(roots) == 1 else roots


@dataclass(frozen=True)
class _Found:
    """Images below a root. `deep` is True if subfolders were searched, and None for a file given by name.

    Images in containers have `members` by name.
    """

    root: Path
    names: list[str]
    deep: bool | None
    left_out: LeftOut = field(default_factory=dict)
    members: Mapping[str, Member] = field(default_factory=dict)


def plan_files(source: Source, out: Source, pack: str | None = None) -> Plan:
    """Lists the images to restore and their outputs, and creates the output folders.

    Args:
        source: an image, a folder that is searched with its subfolders, or a pattern such as `photos/**/*.jpg`. With a
            pattern, the names of the outputs contain the part of the path from the first wildcard on. Or a container, a
            folder with containers and no images, or a pattern for containers.
        out: a folder. For a single image, it is a file name if it has a suffix and is not an existing folder.
        pack: see `Plan`.

    Raises:
        DataError: no image was found, two images have the same output, an output would overwrite a source, or `out` is
            inside the searched folder, is a file or is not writable.
    """
    if Path(source).is_file() and not is_container(Path(source)):
        if pack is not None:
            raise DataError(f'{source} is a single image, which has no packs. Remove --pack {pack}.')
        found = _single(Path(source), out)
    else:
        found = _planned([source], Path(out), restored_name, pack)
    _prepare(found)
    changed = [task for task in found.tasks if Path(task.name).suffix != Path(task.output).suffix]
    if changed and not found.single:
        logger.warning(
            'Images of types that cannot be written become PNG (number: %d, e.g. %s)', len(changed), changed[0].name
        )
    return found


def plan_outputs(sources: Source | Sequence[Source], out: Source, outputs: Outputs, pack: str | None = None) -> Plan:
    """Lists the images to process, each with one or more outputs below one folder, and creates the output folders.

    Args:
        sources: an image, a folder, a pattern, or a list of these; see `plan_files`.
        out: the output folder.
        outputs: function that returns the names of the outputs of an image.
        pack: see `Plan`.

    Raises:
        DataError: see `plan_files`.
    """
    listed = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    plan = _planned(listed, Path(out), outputs, pack)
    _prepare(plan)
    return plan


def part_of(plan: Plan, shard: Shard | None) -> tuple[Plan, Part]:
    """Returns the plan with the images of a shard only, and its part of the job. Without a shard, all images."""
    part = Part(plan.out, (task.name for task in plan.tasks), shard)
    own = (task for task in plan.tasks if part.has(task.name))
    return replace(plan, tasks=[_staged(task, part, plan.pack is not None) for task in own]), part


def _staged(task: Task, part: Part, pack: bool) -> Task:
    """Returns a task whose source out of a container, and whose outputs for a pack, are in the staging folder."""
    if task.member is not None:
        task = task._replace(source=part.staged('image', task.name))
    if not pack:
        return task
    target, *others = (part.staged('output', name) for name in task.packed)
    return task._replace(target=target, others=tuple(others))


def restored_name(name: str) -> tuple[str]:
    """Returns the only output name of an image: its own name, with `.png` if files of its type cannot be written."""
    return (Path(name).with_suffix(output_suffix(Path(name).suffix)).as_posix(),)


def _prepare(plan: Plan) -> None:
    _refuse_overwriting(plan.tasks, plan.pack is None)
    targets = () if plan.pack else (target for task in plan.tasks for target in task.targets)
    for folder in sorted({target.parent for target in targets} | {plan.out}):
        _make_writable(folder)
    for line in described_left_out(plan.left_out):
        logger.warning(line)


def _single(source: Path, out: Source) -> Plan:
    target = Path(out)
    if target.is_dir() or os.fspath(out).endswith(os.sep) or not target.suffix:
        task = _task(source.parent, target, source.name, restored_name)
        if Path(task.output).suffix != source.suffix:
            logger.warning('%s is written as %s, because its own file type cannot be written', source, task.target)
        return Plan((source.parent,), target, [task], single=True)
    if target.suffix.lower() not in WRITABLE:
        raise DataError(f'{target}: cannot write images of type {target.suffix}. Use one of {", ".join(WRITABLE)}.')
    return Plan((source.parent,), target.parent, [Task(source.name, target.name, source, target)], single=True)


def _planned(sources: Sequence[Source], out: Path, outputs: Outputs, pack: str | None) -> Plan:
    found = [_found(Path(source)) for source in sources]
    for part in found:
        _refuse_inside(part, out)
    tasks = {task.origin: task for part in found for task in _tasks(part, out, outputs)}  # a file is listed once
    ordered = sorted(tasks.values(), key=lambda task: task.name)
    left_out = merged(part.left_out for part in found)
    if pack is not None:
        ordered = [task._replace(packed=tuple(outputs(task.name))) for task in ordered]
        check_names(pack, (name for task in ordered for name in task.packed))
    else:
        refuse_collisions(out, (task.output for task in ordered))
    return Plan(tuple(part.root for part in found), out, ordered, left_out=left_out, pack=pack)


def _found(source: Path) -> _Found:
    if is_container(source):
        return _contained(source, source.parent, [source], None)
    if source.is_file():
        return _Found(source.parent, [source.name], None)
    found = searched(source)
    if found is None:
        raise DataError(f'{source} does not exist. Pass an image, a folder of images, or a pattern in quotes.')
    root, deep, paths = *found[:2], list(found[2])
    names, left_out = chosen_files(root, paths, READABLE)
    if not names and any(map(is_container, paths)):
        return _contained(root, root, paths, deep)
    if not names:
        raise DataError(f'No images found in {source}; searched for {", ".join(READABLE)}.')
    return _Found(root, names, deep, left_out)


def _contained(source: Path, root: Path, paths: list[Path], deep: bool | None) -> _Found:
    members, left_out = images_in(root, paths, READABLE)
    if not members:
        raise DataError(f'No images found in the containers of {source}; searched for {", ".join(READABLE)}.')
    return _Found(source, sorted(members), deep, left_out, members)


def _refuse_inside(found: _Found, out: Path) -> None:
    root, folder = found.root.resolve(), out.resolve()
    refuse_inside(out, found.members.values())
    if found.deep is not None and (folder == root or (found.deep and root in folder.parents)):
        raise DataError(
            f'The output folder {out} is in the image folder {found.root}, so the next run would process its own '
            'outputs. Choose an output folder outside it.'
        )
    linked = linked_into(found.root, found.names, out) if found.deep is not None and not found.members else None
    if linked is not None:
        raise DataError(
            f'{linked} is a link into the output folder {out}, so the next run would process its own outputs. Choose '
            'another output folder, or remove the link.'
        )


def _tasks(found: _Found, out: Path, outputs: Outputs) -> list[Task]:
    return [_task(found.root, out, name, outputs)._replace(member=found.members.get(name)) for name in found.names]


def _task(root: Path, out: Path, name: str, outputs: Outputs) -> Task:
    output, *others = outputs(name)
    return Task(name, output, root / name, out / output, tuple(out / other for other in others))


def _refuse_overwriting(tasks: list[Task], files: bool) -> None:
    """Raises a DataError if two images have the same output, or if an output that is a file is one of the images."""
    owners = {}
    sources = {task.source.resolve() for task in tasks if files and task.member is None}
    for task in tasks:
        other = owners.setdefault(task.output, task)
        if other is not task:
            raise DataError(f'{other.origin} and {task.origin} would both become {task.target}. {_advice(other, task)}')
        for target in task.targets if sources else ():
            if target.resolve() in sources:
                raise DataError(f'The output {target} is one of the images to process. Choose another output.')


def _advice(one: Task, other: Task) -> str:
    containers = {task.member and task.member.container for task in (one, other)}
    if None in containers or len(containers) == 1:
        return 'Rename one of them.'
    return (
        'Pass the containers as one folder or pattern, e.g. "photos/*.tar", so that the names begin with those of the '
        'containers, or rename one of them.'
    )


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f'Cannot write to the output folder {folder}: {error}. Choose another one.') from error
