"""Segmentation of many image files in a job that can be stopped at any time and resumed."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt

from rass_mm.errors import ConfigError
from rass_mm.files.atomic import write_bytes
from rass_mm.files.containers.kinds import TAR
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.inference.capacity import SEGMENT_BYTES, fitting
from rass_mm.inference.job import Note, Summary, Words, Worker, report_broken, run_tasks
from rass_mm.inference.manifest import ImageLine, Manifest
from rass_mm.inference.modes import SegmentOptions
from rass_mm.inference.photo_segmentor import PhotoSegmentor
from rass_mm.inference.photos import read_bgr
from rass_mm.inference.plan import Plan, Task, part_of, plan_outputs
from rass_mm.inference.results import Segmentation, image_png
from rass_mm.inference.shares import CLASSES, has_shares, write_shares
from rass_mm.jobs.shard import Shard
from rass_mm.parallel import Pool

logger = logging.getLogger(__name__)

FORMAT = 'rass_mm label maps, 1'
WORDS = Words('segmenting', 'segmented')
LABELS, OVERLAYS, CONFIDENCE, RESTORED = 'labels', 'overlays', 'confidence', 'restored'
"""Folders of the outputs, below the output folder."""


class SegmentedLine(ImageLine):
    """Manifest line of a segmented image, with the number of pixels by class id."""

    width: PositiveInt
    height: PositiveInt
    pixels: dict[Annotated[str, Field(pattern=r'^\d{1,5}$')], NonNegativeInt]


def segment_files(
    sources: str | os.PathLike | Sequence[str | os.PathLike],
    out: str | os.PathLike,
    load: Callable[[], PhotoSegmentor],
    options: SegmentOptions,
    model: Mapping[str, Any] | None = None,
    restored: bool = False,
    max_pixels: int = MAX_PIXELS,
    shard: Shard | None = None,
    pool: Pool | None = None,
    pack: str | None = None,
) -> Summary:
    """Segments image files, all images of folders and their subfolders, and all images that match patterns.

    Outputs are PNG files below `out`, with the relative path and the name of their source. `labels/` contains class ids
    with a palette (16-bit grey for more than 255 classes), and `overlays/` contains the labels over the photo, with a
    legend. On request, `confidence/` contains the 8-bit probability of each label, and `restored/` contains the
    restored images that were segmented. `shares.csv` and `shares.json` contain the share of each class per image. A
    manifest in `out` records finished images: repeating the call segments only images that are missing or have changed,
    and a call with other settings raises an error.

    Args:
        sources: an image, a folder, a pattern such as `photos/**/*.jpg`, or a list of these.
        out: the output folder.
        load: function that returns the segmentor; called after all checks, and only if there is something to compute.
        options: see `SegmentOptions`.
        model: hashes and other values that identify the segmentor in the manifest.
        restored: whether to write restored images, which requires a model that restores images.
        max_pixels: largest number of pixels of an image, see `read_picture`.
        shard: the shard of the images to segment; None for all. The tables are then written by the merge of the shards,
            see `rass_mm.jobs.merge`.
        pool: processes that segment the images, e.g. `rass_mm.jobs.ray.pool.RayPool`; None for this process. Each of
            them calls `load`, which is pickled.
        pack: kind of the containers for the outputs, see `Plan`. In tar files, the outputs of an image have its name
            with e.g. `.labels.png`, so that WebDataset reads them as one sample. None writes files.

    Raises:
        DataError: the files cannot be used (see `plan_outputs` and `Manifest`), or some images failed. In the second
            case, the message lists them, and all other images are segmented.
        ConfigError: the options do not suit the segmentor.
    """
    start = time.monotonic()
    folders = [LABELS, OVERLAYS, *[CONFIDENCE] * options.confidence, *[RESTORED] * restored]
    plan = plan_outputs(sources, out, lambda name: [output_name(name, folder, pack) for folder in folders], pack)
    settings = {**asdict(options), 'restored': restored}
    plan, part = part_of(plan, shard)
    with part.held():
        manifest = Manifest(plan, FORMAT, settings, model or {}, SegmentedLine, part)
        pending = manifest.pending(plan.tasks)
        logger.info('%d of %d images to segment', len(pending), len(plan.tasks))
        broken, facts = {}, {}
        if pending or not _has_tables(manifest, plan):
            build = partial(_worker, load, options, folders, restored, max_pixels)
            try:
                broken = run_tasks(pending, build, manifest, WORDS, pool if pending else None, facts)
            finally:  # also after an interruption
                if shard is None and facts:
                    write_shares(plan.out, manifest.lines.values(), facts[CLASSES])
        manifest.finish(broken)
        report_broken(broken, plan, WORDS)
    return Summary(len(plan.tasks), len(pending), time.monotonic() - start)


def _has_tables(manifest: Manifest, plan: Plan) -> bool:
    """Returns whether the tables of shares are written, or a shard has recorded what the merge needs to write them."""
    if manifest.part.shard is None:
        return has_shares(plan.out)
    return CLASSES in manifest.notes or not plan.tasks


def _prepared(
    load: Callable[[], PhotoSegmentor], options: SegmentOptions, restored: bool, max_pixels: int
) -> PhotoSegmentor:
    """Loads the segmentor, sets its options and logs how it processes images."""
    segmentor = load()
    segmentor.use(options)
    if restored and not segmentor.restores:
        raise ConfigError(
            f'--restored needs a model that restores images first (RestoreThenSegment), but this one is a '
            f'{type(segmentor.model).__name__}.'
        )
    logger.info('Mode: %s', segmentor.choice.described())
    logger.info('Size: %s', fitting(SEGMENT_BYTES, max_pixels, segmentor.device))
    return segmentor


def output_name(name: str, folder: str, pack: str | None = None) -> str:
    """Returns the name of an output of an image.

    Args:
        name: name of the image.
        folder: folder of the output, e.g. `LABELS`.
        pack: see `segment_files`.
    """
    return Path(name).with_suffix(f'.{folder}.png').as_posix() if pack == TAR else f'{folder}/{_as_png(name)}'


def _as_png(name: str) -> str:
    return Path(name).with_suffix('.png').as_posix()


def _worker(
    load: Callable[[], PhotoSegmentor], options: SegmentOptions, folders: Sequence[str], restored: bool, max_pixels: int
) -> Worker:
    segmentor = _prepared(load, options, restored, max_pixels)

    def work(task: Task, note: Note) -> dict[str, Any]:
        image = read_bgr(task.source, max_pixels, segmentor.backend)
        found = segmentor.segment(image, os.fspath(task.source), lambda done: note(f'{100 * done:.0f} %'))
        for folder, target in zip(folders, task.targets, strict=True):
            _write(found, folder, target)
        height, width = found.labels.shape
        return {'width': width, 'height': height, 'pixels': found.counts}

    return Worker(work, {CLASSES: list(segmentor.classes)})


def _write(found: Segmentation, folder: str, target: Path) -> None:
    if folder == LABELS:
        found.save(target)
        return
    images = {OVERLAYS: found.overlay, CONFIDENCE: lambda: found.confidence, RESTORED: lambda: found.restored}
    write_bytes(target, image_png(images[folder]()))
