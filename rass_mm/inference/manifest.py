"""Manifest of an output folder, with which a stopped restoration resumes and never mixes two settings.

It has one JSON object per line: a header, then a line per finished image with the size and modification time of its
source. Each line is appended when its image is finished.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rass_mm.errors import DataError
from rass_mm.files.images import WRITABLE
from rass_mm.files.manifest import MANIFEST, append_line, read_manifest, remove_leftovers, write_manifest
from rass_mm.inference.plan import Plan, Task
from rass_mm.inference.restore import RestoreOptions
from rass_mm.version import __version__

FORMAT = 'rass_mm restored images, 2'
"""Format version. Version 1 enlarged with OpenCV's bicubic kernel, version 2 with Pillow's; a folder has only one."""
DECISIVE = ('format', 'source', 'options', 'model')


class Manifest:
    """The finished images of an output folder.

    Args:
        plan: what is to be restored.
        options: see `RestoreOptions`; the batch size is ignored, because it does not change the result.
        model: values that identify the network; must be JSON-serializable.

    Raises:
        DataError: the folder contains results of other settings or another source, or files of unknown origin.
    """

    def __init__(self, plan: Plan, options: RestoreOptions, model: Mapping[str, Any]) -> None:
        self.path = plan.out / MANIFEST
        settings = {name: value for name, value in asdict(options).items() if name != 'batch'}
        source = str(plan.root.resolve())
        self.header = {'format': FORMAT, 'source': source, 'options': settings, 'model': dict(model)}
        self.header = json.loads(json.dumps({**self.header, 'version': __version__}))
        self.lines = self._read() if self.path.exists() else {}
        if not self.path.exists():
            _refuse_foreign(plan)

    def _read(self) -> dict[str, dict]:
        old, lines = read_manifest(self.path)
        differing = [key for key in DECISIVE if old.get(key) != self.header[key]]
        if differing:
            listed = '\n'.join(f'  {key}: {old.get(key)}, now {self.header[key]}' for key in differing)
            raise DataError(
                f'{self.path} shows that the folder was made with other settings:\n{listed}\nChoose another output '
                'folder, delete this one, or use the same settings as before.'
            )
        return lines

    def has(self, task: Task) -> bool:
        """Checks whether the image is finished and its source is unchanged."""
        line = self.lines.get(task.name)
        return line is not None and line == source_line(task) and task.target.is_file()

    def begin(self) -> None:
        """Prepares the folder for more images: rewrites the manifest and removes leftovers of a killed run."""
        remove_leftovers(self.path.parent, WRITABLE)
        write_manifest(self.path, self.header, self.lines.values())

    def add(self, line: dict) -> None:
        """Records a finished image; `line` is from `source_line`, called before the source was read."""
        self.lines[line['image']] = line
        append_line(self.path, line)


def source_line(task: Task) -> dict:
    """Returns the manifest line of an image: its names, and the size and modification time of its source."""
    status = task.source.stat()
    return {'image': task.name, 'output': task.output, 'size': status.st_size, 'mtime_ns': status.st_mtime_ns}


def _refuse_foreign(plan: Plan) -> None:
    foreign = next((task.target for task in plan.tasks if task.target.exists()), None)
    if foreign is not None:
        raise DataError(
            f'{foreign} would be overwritten, but {plan.out} has no {MANIFEST} that records how it was made. Choose an '
            'empty output folder.'
        )
