"""Restoration of many image files in a job that can be stopped at any time and resumed."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from rass_mm.errors import ConfigError
from rass_mm.files.images import read_picture, write_picture
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.inference.capacity import RESTORE_BYTES, fitting
from rass_mm.inference.job import Note, Summary, Words, Worker, report_broken, run_tasks
from rass_mm.inference.manifest import Manifest
from rass_mm.inference.plan import Plan, Task, part_of, plan_files
from rass_mm.inference.restore import Apply, RestoreOptions, restore_image
from rass_mm.jobs.shard import Shard
from rass_mm.parallel import Pool

logger = logging.getLogger(__name__)

FORMAT = 'rass_mm restored images, 2'
"""Kind and version of the outputs. Version 1 enlarged with OpenCV's bicubic kernel, version 2 uses that of Pillow."""
WORDS = Words('restoring', 'restored')
RestoreSummary = Summary


class Restoring(Protocol):
    """Interface of a restoration network, such as `rass_mm.diffusion.restorer.Restorer`."""

    size_multiple: int

    def __call__(self, images: Tensor) -> Tensor:
        """Restores (B, 3, h, w) RGB images in [-1, 1]; h and w are multiples of `size_multiple`."""
        ...


def restore_files(
    source: str | os.PathLike,
    out: str | os.PathLike,
    load: Callable[[], Restoring],
    options: RestoreOptions,
    model: Mapping[str, Any] | None = None,
    max_pixels: int = MAX_PIXELS,
    shard: Shard | None = None,
    pool: Pool | None = None,
    pack: str | None = None,
) -> Summary:
    """Restores an image, all images of a folder and its subfolders, or all images that match a pattern.

    Outputs are written below `out` with the names of their sources. File types that cannot be written become PNG. For a
    folder or a pattern, `out` contains a manifest: repeating the call restores only images that are missing or have
    changed, and a call with other settings raises an error. A single image is always restored again, and its output is
    replaced.

    Args:
        source: an image file, a folder, or a pattern such as `photos/**/*.jpg`.
        out: an output folder; for a single image, a folder or a file name.
        load: function that returns the restorer; called after all checks, and only if there are images to restore.
        options: see `RestoreOptions`.
        model: hashes, precision and other values that identify the restorer in the manifest.
        max_pixels: largest number of pixels of an image, see `read_picture`.
        shard: the shard of the images to restore, which `rass_mm.jobs.merge` merges with the others; None for all.
        pool: processes that restore the images, e.g. `rass_mm.jobs.ray.pool.RayPool`; None for this process. Each of
            them calls `load`, which is pickled.
        pack: kind of the containers for the outputs, see `Plan`; None writes files.

    Raises:
        DataError: the files cannot be used (see `plan_files` and `Manifest`), or some images failed. In the second
            case, the message lists them, and all other images are restored.
        ConfigError: the options do not suit the restorer.
    """
    return restore_planned(plan_files(source, out, pack), load, options, model, max_pixels, shard, pool)


def restore_planned(
    plan: Plan,
    load: Callable[[], Restoring],
    options: RestoreOptions,
    model: Mapping[str, Any] | None = None,
    max_pixels: int = MAX_PIXELS,
    shard: Shard | None = None,
    pool: Pool | None = None,
) -> Summary:
    """Restores the images of a plan from `plan_files`; see `restore_files`."""
    start = time.monotonic()
    if plan.single and shard is not None:
        raise ConfigError(f'{plan.tasks[0].source} is a single image, which has no shards. Remove --shards.')
    if plan.single and pool is not None:
        raise ConfigError(f'{plan.tasks[0].source} is a single image, which one process restores. Remove --ray.')
    plan, part = part_of(plan, shard)
    with nullcontext() if plan.single else part.held():
        manifest = None if plan.single else Manifest(plan, FORMAT, decisive(options), model or {}, part=part)
        pending = plan.tasks if manifest is None else manifest.pending(plan.tasks)
        logger.info('%d of %d images to restore', len(pending), len(plan.tasks))
        broken = {}
        if pending:
            broken = run_tasks(pending, partial(_worker, load, options, max_pixels), manifest, WORDS, pool)
        if manifest:
            manifest.finish(broken)
        report_broken(broken, plan, WORDS)
    return Summary(len(plan.tasks), len(pending), time.monotonic() - start)


def decisive(options: RestoreOptions) -> dict[str, Any]:
    """Returns the options that are recorded in the manifest: all except the batch size."""
    return {name: value for name, value in asdict(options).items() if name != 'batch'}


def described(options: RestoreOptions) -> str:
    """Describes the scheme of a restoration in a few words."""
    if options.scheme != 'windows':
        return f"scheme '{options.scheme}', each image as a whole"
    return f'windows of {options.window} pixels with an overlap of {options.overlap}, {options.batch} at a time'


def _worker(load: Callable[[], Restoring], options: RestoreOptions, max_pixels: int) -> Worker:
    restorer = load()
    logger.info('%s; %s', described(options), fitting(RESTORE_BYTES * options.upscale**2, max_pixels))

    def work(task: Task, note: Note) -> dict[str, Any]:
        picture = read_picture(task.source, max_pixels)
        apply = _counted(restorer, note)
        pixels = restore_image(picture.pixels, apply, options, restorer.size_multiple, picture.depth)
        write_picture(task.target, pixels, picture)
        return {}

    return Worker(work)


def _counted(apply: Apply, note: Note) -> Apply:
    """Wraps a network so that each call shows the number of finished windows of the image as its progress."""
    windows = 0

    def counting(images: Tensor) -> Tensor:
        nonlocal windows
        outputs = apply(images)
        windows += len(images)
        note(f'window {windows}')
        return outputs

    return counting
