"""Restoration of many image files in a job that can be stopped at any time and resumed."""

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
    """Interface of a restoring network, such as the `Restorer` of the diffusion core."""

    size_multiple: int

    def __call__(self, images: Tensor) -> Tensor:
        """Restores (B, 3, h, w) RGB images in [-1, 1]; h and w are multiples of `size_multiple`."""
        ...


@dataclass(frozen=True)
class RestoreSummary:
    """Summary of a run.

    Args:
        images: number of requested images.
        made: number of images that this run restored; the others were restored by an earlier run.
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
    """Restores an image, all images of a folder and its subfolders, or all images that match a pattern.

    Outputs are written below `out` with the names of their sources; file types that cannot be written become PNG. For
    a folder or a pattern, `out` contains a manifest: repeating the call restores only images that are missing or have
    changed, and a call with other settings raises an error. A single image is always restored and its output replaced.

    Args:
        source: an image file, a folder, or a pattern such as `photos/**/*.jpg`.
        out: an output folder; for a single image, a folder or a file name.
        load: returns the restorer; called after all checks, and only if there are images to restore.
        options: see `RestoreOptions`.
        model: hashes, precision and other values that identify the restorer, for the manifest.

    Raises:
        DataError: see `plan_files` and `Manifest`. Also raised if some images failed; it lists them, and all others
            are restored.
        ConfigError: the options do not suit the restorer.
    """
    start = time.monotonic()
    plan = plan_files(source, out)
    manifest = None if plan.single else Manifest(plan, options, model or {})
    pending = [task for task in plan.tasks if manifest is None or not manifest.has(task)]
    logger.info('%d of %d images to restore', len(pending), len(plan.tasks))
    if pending:
        _report(_run(pending, load(), options, manifest), plan)
    return RestoreSummary(len(plan.tasks), len(pending), time.monotonic() - start)


def _run(tasks: list[Task], restorer: Restoring, options: RestoreOptions, manifest: Manifest | None) -> list[str]:
    """Restores the images; returns an error message for each image that cannot be restored."""
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
            f'Cannot write the restored images: {error}. Finished images are kept. Free disk space or check the '
            'permissions, and run the same command again.'
        ) from error
    return broken


def _restore(task: Task, apply: Apply, options: RestoreOptions, multiple: int) -> dict:
    """Restores one file and returns its manifest line.

    Raises:
        DataError: the image cannot be read or restored.
        OSError: the output cannot be written.
    """
    try:
        line = source_line(task)  # before reading, so that a source that changes meanwhile counts as changed
    except OSError as error:
        raise DataError(f'{task.source}: the image no longer exists ({error}).') from error
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
        f'The other {len(plan.tasks) - len(broken)} are restored.'
    )


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[Apply], Apply]]]:
    """Context manager. Yields a function to call before each image, and a network wrapper that counts windows.

    The number of windows shows progress within a large image. Outside a terminal, each tenth of the images is logged.
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
