"""Manifest of an output folder. With it, a stopped job can resume, and outputs of different settings are never mixed.

The manifest has one JSON object per line: a header, then one line per finished image with the size and modification
time of its source. A line is appended when its image is finished.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NotRequired

from rass_mm.errors import DataError
from rass_mm.files.containers.search import SUFFIXES as CONTAINERS
from rass_mm.files.images import WRITABLE
from rass_mm.files.manifest import (
    Line,
    append_line,
    checksum,
    output_state,
    read_manifest,
    write_manifest,
)
from rass_mm.files.verified import State, Verified, file_state
from rass_mm.inference.plan import Plan, Task
from rass_mm.jobs.packing import CHECKSUMS, Packer, own_packs
from rass_mm.jobs.part import SHARD, Part, differing
from rass_mm.parallel import watched
from rass_mm.version import __version__

logger = logging.getLogger(__name__)

DECISIVE = ('format', 'source', 'options', 'model')
SUFFIXES = (*WRITABLE, '.csv', '.json')


class ImageLine(Line):
    """Line of a finished image."""

    output: str
    size: int
    mtime_ns: int
    crc32: NotRequired[list[int]]


class Manifest:
    """Record of the finished images of an output folder, or of one shard of them.

    Args:
        plan: the images to process in this run, and their outputs.
        format: kind and version of the outputs, which must be the same for all outputs of a folder.
        options: settings that change the outputs; must be JSON-serializable.
        model: values that identify the network; must be JSON-serializable.
        kind: the required type of a line.
        part: the part of the job that this run does, whose lock must be held; None stands for all images.

    Raises:
        DataError: the folder contains outputs with other settings or from another source, or files of unknown origin.
    """

    def __init__(
        self,
        plan: Plan,
        format: str,
        options: Mapping[str, Any],
        model: Mapping[str, Any],
        kind: Any = ImageLine,
        part: Part | None = None,
    ) -> None:
        self.part, self.roots = part or Part(plan.out), plan.roots
        self.path, self.targets = self.part.manifest, [target for task in plan.tasks for target in task.targets]
        options = {**options, **({} if plan.pack is None else {'pack': plan.pack})}
        identity = {'format': format, 'source': plan.source, 'options': options, 'model': dict(model)}
        identity = json.loads(json.dumps(identity))
        self.header = self.part.header({**identity, 'version': __version__}, identity)
        self._new = not self.path.exists()
        self.lines = {} if self._new else self._read(kind)
        self.verified = Verified(plan.out, self.part.verified)
        if self._new:
            self._refuse_foreign(plan.pack)
        self.part.claim(self.header)
        self.packer = None if plan.pack is None else Packer(self.part, plan.pack, self.lines, self.verified)
        self.begun = False

    def _read(self, kind: Any) -> dict[str, dict]:
        old, lines = read_manifest(self.path, kind)
        listed = differing(old, {key: self.header[key] for key in DECISIVE})
        if listed and self.part.settled:
            raise DataError(
                f'{self.path} shows that the folder was made with other settings:\n{listed}\nChoose another output '
                'folder, delete this one, or use the same settings as before.'
            )
        return lines

    def _refuse_foreign(self, pack: str | None) -> None:
        packs = own_packs(self.part) if pack else []
        foreign = next((target for target in (*packs, *self.targets) if target.exists()), None)
        if foreign is not None:
            raise DataError(
                f'{foreign} would be overwritten, but {self.path.parent} has no {self.path.name} that records how its '
                'files were made. Choose an empty output folder.'
            )

    def pending(self, tasks: Sequence[Task]) -> list[Task]:
        """Returns the images that are not finished, and shows the progress of the check; see `has`."""
        recorded = [task for task in tasks if task.name in self.lines]
        checks = ((task.name, self.has(task)) for task in recorded)
        finished = {name for name, done in watched(checks, len(recorded), 'checking', 'finished images') if done}
        if self.packer:
            finished = self.packer.kept(finished, [task.name for task in tasks])
            self.packer.take(task.staged for task in tasks if task.name in finished)
        return sorted((task for task in tasks if task.name not in finished), key=lambda task: task.place)

    def has(self, task: Task) -> bool:
        """Returns whether the image is finished and its source is unchanged.

        A damaged output is not finished, and neither is an image without the checksums of all outputs. A warning is
        logged about it, and about an output that was changed since. An output is only read if its size or its
        modification time has changed since it was written or read.
        """
        line = self.lines.get(task.name)
        if line is None or not source_line(task).items() <= line.items():
            return False
        if self.packer and self.packer.is_packed(task.name):
            return True
        if not all(target.is_file() for target in task.targets):
            return False
        recorded = line.get(CHECKSUMS, [None] * len(task.targets))
        if len(recorded) != len(task.targets):
            logger.warning('The line of %s in %s is incomplete. The image is processed again.', task.name, self.path)
            return False
        for target, known in zip(task.targets, recorded, strict=True):
            state = self.verified.state_of(target, known, partial(output_state, target, known))
            if state == 'damaged':
                logger.warning('%s is damaged and is written again.', target)
                return False
            if state == 'changed':
                logger.warning('%s was changed after it was written. It is kept; delete it to write it again.', target)
        return True

    def prepare(self) -> None:
        """Prepares the folder for more images: removes leftovers of a killed run, and writes a new manifest."""
        self.part.begin()
        self.clean()
        self.part.clean_staging(() if self.packer is None else self.packer.staged())
        if self._new:
            write_manifest(self.path, self.header, ())

    def begin(self) -> None:
        """Rewrites the manifest and removes packs that are made again. It has an effect once.

        It is called with the first result, because until then, no model may have been loaded.
        """
        if self.begun:
            return
        self.begun = True
        write_manifest(self.path, self.header, self.lines.values())
        if self.packer:
            self.packer.begin()

    def clean(self) -> None:
        """Removes the temporary files of killed processes."""
        packs = () if self.packer is None else (self.packer.next,)
        self.part.clean((*SUFFIXES, *CONTAINERS), (*self.targets, *packs))

    def withdraw(self) -> None:
        """Removes a manifest that this run has created, unless an image is recorded or written."""
        if self._new and not self.lines and not any(target.exists() for target in self.targets):
            self.path.unlink(missing_ok=True)

    def finish(self, failed: Mapping[str, str]) -> None:
        """Ends a run: puts the lines in the order of the names, because a pool finishes images in any order.

        A shard records the images that failed, by name, with the reason.

        Raises:
            OSError: the last pack cannot be written.
        """
        if self.packer and self.packer.waiting:
            if not self.begun:
                self.prepare()
            self.begin()
            self.packer.write()
        names = sorted(self.lines)
        ordered = {name: self.lines[name] for name in names}
        if self.part.shard is None and (names != list(self.lines) or (self.packer and self.begun)):
            write_manifest(self.path, self.header, ordered.values())
        self.lines = ordered
        self.part.finish(self.header, self.lines.values(), failed)

    @property
    def notes(self) -> dict[str, Any]:
        """Values in the header of a shard that the merge needs. They are not written for all images."""
        return self.header.get(SHARD, {}).get('notes', {})

    def note(self, **values: Any) -> None:
        """Adds notes to the header of a shard, which `prepare`, `begin` and `finish` write."""
        if SHARD in self.header:
            self.header[SHARD]['notes'] |= values

    def add(self, line: dict) -> None:
        """Records a finished image. `line` comes from `source_line`, which is called before the source is read."""
        self.lines[line['image']] = line
        append_line(self.path, line)

    def add_states(self, task: Task, states: Sequence[State]) -> None:
        """Records the states of the outputs of a finished image, so that the next run need not read them.

        Outputs that go into a pack are added to it instead.

        Raises:
            OSError: a pack cannot be written.
        """
        if self.packer:
            self.packer.add(task.staged)
            return
        for target, state, known in zip(task.targets, states, self.lines[task.name][CHECKSUMS], strict=True):
            self.verified.add(target, state, known)


def source_line(task: Task) -> dict:
    """Returns the manifest line of an image: its names, and the size and modification time of its source.

    Those of an image in a container are those of the container, and the line also has its place in it.
    """
    if task.member is not None:
        return {'image': task.name, 'output': task.output, **task.member.identity()}
    status = task.source.stat()
    return {'image': task.name, 'output': task.output, 'size': status.st_size, 'mtime_ns': status.st_mtime_ns}


def checksums(task: Task) -> dict[str, list[int]]:
    """Returns the part of a manifest line that is known when the outputs are written: their checksums."""
    return {CHECKSUMS: [checksum(target.read_bytes()) for target in task.targets]}


def output_states(task: Task) -> list[State]:
    """Returns the sizes and modification times of the outputs."""
    return [file_state(target) for target in task.targets]
