"""Manifest of an output folder. With it, a stopped job can resume, and outputs of different settings are never mixed.

The manifest has one JSON object per line: a header, then one line per finished image with the size and modification
time of its source. A line is appended when its image is finished.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from typing_extensions import NotRequired

from rass_mm.errors import DataError
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
from rass_mm.jobs.part import SHARD, Part, differing
from rass_mm.parallel import watched
from rass_mm.version import __version__

logger = logging.getLogger(__name__)

CHECKSUMS = 'crc32'
"""Key of the checksums of the outputs in a manifest line."""
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
        self.part = part or Part(plan.out)
        self.path, self.targets = self.part.manifest, [target for task in plan.tasks for target in task.targets]
        identity = {'format': format, 'source': plan.source, 'options': dict(options), 'model': dict(model)}
        identity = json.loads(json.dumps(identity))
        self.header = self.part.header({**identity, 'version': __version__}, identity)
        self.lines = self._read(kind) if self.path.exists() else {}
        self.verified = Verified(plan.out, self.part.verified)
        if not self.path.exists():
            self._refuse_foreign()
        self.part.claim(self.header)

    def _read(self, kind: Any) -> dict[str, dict]:
        old, lines = read_manifest(self.path, kind)
        listed = differing(old, {key: self.header[key] for key in DECISIVE})
        if listed and self.part.settled:
            raise DataError(
                f'{self.path} shows that the folder was made with other settings:\n{listed}\nChoose another output '
                'folder, delete this one, or use the same settings as before.'
            )
        return lines

    def _refuse_foreign(self) -> None:
        foreign = next((target for target in self.targets if target.exists()), None)
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
        return [task for task in tasks if task.name not in finished]

    def has(self, task: Task) -> bool:
        """Returns whether the image is finished and its source is unchanged.

        A damaged output is not finished, and neither is an image without the checksums of all outputs. A warning is
        logged about it, and about an output that was changed since. An output is only read if its size or its
        modification time has changed since it was written or read.
        """
        line = self.lines.get(task.name)
        if line is None or not source_line(task).items() <= line.items() or not all(t.is_file() for t in task.targets):
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

    def begin(self) -> None:
        """Prepares the folder for more images: rewrites the manifest and removes leftovers of a killed run."""
        self.part.begin()
        self.part.clean(SUFFIXES, self.targets)
        write_manifest(self.path, self.header, self.lines.values())

    def finish(self, failed: Mapping[str, str]) -> None:
        """Ends a run. A shard records the images that failed, by name, with the reason."""
        self.part.finish(self.header, self.lines.values(), failed)

    @property
    def notes(self) -> dict[str, Any]:
        """Values in the header of a shard that the merge needs. They are not written for all images."""
        return self.header.get(SHARD, {}).get('notes', {})

    def note(self, **values: Any) -> None:
        """Adds notes to the header of a shard, which `begin` and `finish` write."""
        if SHARD in self.header:
            self.header[SHARD]['notes'] |= values

    def add(self, line: dict) -> None:
        """Records a finished image. `line` comes from `source_line`, which is called before the source is read."""
        self.lines[line['image']] = line
        append_line(self.path, line)

    def add_states(self, task: Task, states: Sequence[State]) -> None:
        """Records the states of the outputs of a finished image, so that the next run need not read them."""
        for target, state, known in zip(task.targets, states, self.lines[task.name][CHECKSUMS], strict=True):
            self.verified.add(target, state, known)


def source_line(task: Task) -> dict:
    """Returns the manifest line of an image: its names, and the size and modification time of its source."""
    status = task.source.stat()
    return {'image': task.name, 'output': task.output, 'size': status.st_size, 'mtime_ns': status.st_mtime_ns}


def checksums(task: Task) -> dict[str, list[int]]:
    """Returns the part of a manifest line that is known when the outputs are written: their checksums."""
    return {CHECKSUMS: [checksum(target.read_bytes()) for target in task.targets]}


def output_states(task: Task) -> list[State]:
    """Returns the sizes and modification times of the outputs."""
    return [file_state(target) for target in task.targets]
