"""Restoration of many image files, in a job that can be stopped at any time and resumed."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.progress import TextColumn
from torch import Tensor

from rass_mm.errors import AdapterError, DataError
from rass_mm.files.images import read_picture, write_picture
from rass_mm.inference.manifest import Manifest, source_line
from rass_mm.inference.plan import Plan, Task, plan_files
from rass_mm.inference.restore import Apply, RestoreOptions, restore_image
from rass_mm.parallel import progress_bar

logger = logging.getLogger(__name__)

LISTED = 20


class Restoring(Protocol):
    """What restores: a `Restorer` of the diffusion core, or anything alike."""

    size_multiple: int

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) RGB in [-1, 1] to the same shape; h and w are multiples of `size_multiple`."""
        ...


@dataclass(frozen=True)
class RestoreSummary:
    """What a run did.

    Args:
        images: number of images that were asked for.
        made: how many of them this run restored; the others were there from an earlier run.
        seconds: duration of the run.
    """

    images: int
    made: int
    seconds: float


def restore_files(
    source: str | os.PathLike,
    out: str | os.PathLike,
    load: Callable[[], Restoring],
    options: RestoreOptions,
    model: Mapping[str, Any] | None = None,
) -> RestoreSummary:
    """Restores an image, all images of a folder and its subfolders, or those that fit a pattern.

    Outputs have the names of their sources, below `out`; a type that is not written becomes PNG. For a folder or a
    pattern, `out` keeps a manifest: the same call again restores only what is missing or has changed, another call on
    the same `out` is an error. A single image is restored, and its output replaced, every time.

    Args:
        source: an image file, a folder, or a pattern such as `photos/**/*.jpg`.
        out: a folder; for one image also a file name.
        load: gives the restorer; called after all checks, and only if there is something to do.
        options: how.
        model: what identifies the restorer (hashes, precision), for the manifest.

    Raises:
        DataError: see `plan_files` and `Manifest`; or some images failed: they are listed, all others are done.
        ConfigError: the options do not fit the restorer.
    """
    start = time.monotonic()
    plan = plan_files(source, out)
    manifest = None if plan.single else Manifest(plan, options, model or {})
    pending = [task for task in plan.tasks if manifest is None or not manifest.has(task)]
    logger.info('%d of %d images are to be restored', len(pending), len(plan.tasks))
    if pending:
        _report(_run(pending, load(), options, manifest), plan)
    return RestoreSummary(len(plan.tasks), len(pending), time.monotonic() - start)


def _run(tasks: list[Task], restorer: Restoring, options: RestoreOptions, manifest: Manifest | None) -> list[str]:
    """Restores the images; returns what is wrong with those that cannot be restored."""
    broken = []
    try:
        if manifest:
            manifest.begin()
        with _progress(len(tasks)) as (begin, watched):
            apply = watched(restorer)
            for task in tasks:
                begin(task.name)
                try:
                    line = _restore(task, apply, options, restorer.size_multiple)
                except DataError as error:
                    broken.append(str(error))
                    continue
                if manifest:
                    manifest.add(line)
    except OSError as error:
        raise DataError(
            f'Cannot write the restored images: {error}. Finished ones are kept: make room, or see to the rights, and '
            'run the same command again.'
        ) from error
    return broken


def _restore(task: Task, apply: Apply, options: RestoreOptions, multiple: int) -> dict:
    """Restores one file; returns its line for the manifest.

    Raises:
        DataError: this image cannot be read or restored.
        OSError: the output cannot be written.
    """
    try:
        line = source_line(task)  # before reading: a source that changes meanwhile counts as changed
    except OSError as error:
        raise DataError(f'{task.source}: the image is gone ({error}).') from error
    picture = read_picture(task.source)
    try:
        pixels = restore_image(picture.pixels, apply, options, multiple, picture.depth)
    except (AdapterError, DataError) as error:
        raise DataError(f'{task.source}: {error}') from error
    write_picture(task.target, pixels, picture)
    return line


def _report(broken: list[str], plan: Plan) -> None:
    if not broken:
        return
    listed = [f'  {reason}' for reason in broken[:LISTED]]
    listed += [f'  and {len(broken) - LISTED} more'] * (len(broken) > LISTED)
    raise DataError(
        f'{len(broken)} of {len(plan.tasks)} images cannot be restored:\n' + '\n'.join(listed) + '\n'
        f'The other {len(plan.tasks) - len(broken)} are done.'
    )


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[Apply], Apply]]]:
    """Yields a function to call before each image, and a wrapper of the network that counts windows.

    A large image takes long: the windows show that it moves. Elsewhere than in a terminal every tenth is logged.
    """
    with progress_bar(TextColumn('{task.fields[image]} {task.fields[windows]}', markup=False)) as bar:
        row, begun, windows = bar.add_task('restoring', total=total, image='', windows=''), 0, 0

        def begin(name: str) -> None:
            nonlocal begun, windows
            bar.update(row, completed=begun, image=name, windows='')
            if bar.disable and begun and begun * 10 // total > (begun - 1) * 10 // total:
                logger.info('%d of %d images', begun, total)
            begun, windows = begun + 1, 0

        def watched(apply: Apply) -> Apply:
            def counting(images: Tensor) -> Tensor:
                nonlocal windows
                outputs = apply(images)
                windows += len(images)
                bar.update(row, windows=f'window {windows}')
                return outputs

            return counting

        yield begin, watched
        bar.update(row, completed=total)
