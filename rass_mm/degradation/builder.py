"""Builder of a fixed low-quality copy of an image folder, with a manifest that reproduces every image.

The manifest has one JSON object per line: a header, then one line per image, sorted by path. The seed of an image is a
hash of the run's seed and the image's relative path, so the result does not depend on the order of the images or the
number of workers. During a run, lines are appended to a partial manifest. The final manifest is written when all images
are complete.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from rass_mm.degradation.applying import apply
from rass_mm.degradation.copies import EXTENSIONS, PACK, Task, finished_lines, journal, sorted_lines
from rass_mm.degradation.drawing import draw
from rass_mm.degradation.planning import place, planned, root_of, staged
from rass_mm.degradation.reading import read_source
from rass_mm.degradation.recipe import OSEDIFF, Recipe
from rass_mm.errors import ConfigError, DataError, the_others
from rass_mm.files.atomic import write_bytes
from rass_mm.files.containers.kinds import extracted
from rass_mm.files.hashing import json_sha256
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.files.manifest import Record, append_line, checksum, has_header_only, write_manifest
from rass_mm.files.verified import State, Verified, file_state
from rass_mm.jobs.packing import Packer, own_packs
from rass_mm.jobs.part import Part
from rass_mm.jobs.shard import Shard
from rass_mm.parallel import Pool, run_jobs, watched
from rass_mm.version import __version__

logger = logging.getLogger(__name__)

DECISIVE = ('format', 'fingerprint')
"""Keys of the header whose values are the same in all shards of a copy, beside the resolved source folder."""
IMPLIED = {'version': 1, 'jpeg_chroma': 'smooth'}
"""Values of recipe settings that apply to manifests written before the settings were introduced."""


@dataclass(frozen=True)
class BuildSummary:
    """Summary of a run of `build_lq_dataset`.

    Args:
        images: Number of images in the finished copy.
        made: Number of images written by this run. The others are from an earlier run.
        seconds: Duration of the run.
        manifest: Path of the manifest.
    """

    images: int
    made: int
    seconds: float
    manifest: Path


class _Result(NamedTuple):
    """Result of one image: its manifest line and the states of its source and its copy, or None and a reason."""

    task: Task
    line: dict | None
    reason: str = ''
    states: tuple[State, ...] = ()


Run = Callable[[list[Task]], Generator[_Result, None, None]]
"""Degrades images and yields their results as they become available."""


def build_lq_dataset(
    images: str | os.PathLike,
    out: str | os.PathLike,
    seed: int = 0,
    workers: int = 1,
    recipe: Recipe = OSEDIFF,
    suffix: str | None = '.png',
    max_pixels: int = MAX_PIXELS,
    shard: Shard | None = None,
    pool: Pool | None = None,
    pack: str | None = None,
) -> BuildSummary:
    """Writes a degraded copy of all images in a folder and keeps their relative paths. A killed run can be resumed.

    Args:
        images: Folder of clean images. Its subfolders are included, and links to folders are followed. Or a pattern
            such as `photos/**/*.jpg`: names begin with its first wildcard. Or a container, a folder with containers
            and no images, or a pattern for containers, see `rass_mm.files.containers`.
        out: Folder for the degraded images and `manifest.jsonl`.
        seed: Seed of the whole copy.
        workers: Number of processes; 1 uses this process.
        recipe: The recipe to draw from. Pass `override(OSEDIFF, {'version': 1})` to continue a copy of version 1.
        suffix: File type of the copies. None keeps the type of each image, which for JPEG adds one compression of
            quality 100 that the manifest does not list.
        max_pixels: Largest number of pixels of an image. A larger image is not decoded and is reported as unreadable.
        shard: The shard of the images to degrade, which `rass_mm.jobs.merge` merges with the others. None for all.
        pool: Processes that degrade the images instead of `workers`, e.g. `rass_mm.jobs.ray.pool.RayPool`.
        pack: Kind of the containers for the copies, 'tar' or 'parquet'. None writes files.

    Returns:
        A summary of the run.

    Raises:
        ConfigError: `workers` is less than 1 or `suffix` is not supported.
        DataError: The folders are not valid, `out` contains a copy with another seed, recipe, recipe version or suffix,
            or of other images that still exist, or images are unreadable. In the last case, the readable images are
            still processed.
    """
    start = time.monotonic()
    images, out = Path(images), Path(out)
    if workers < 1:
        raise ConfigError(f'The number of workers is {workers}, but it must be at least 1.')
    plan, images = planned(images, out, seed, recipe, suffix, pack), root_of(images)
    part = Part(out, (task.image for task in plan), shard)
    tasks = [staged(task, part, pack)._replace(max_pixels=max_pixels) for task in plan if part.has(task.image)]
    header = _header(images, seed, recipe, suffix) | ({} if pack is None else {PACK: pack})
    run = partial(run_jobs, _degrade_file, workers=workers) if pool is None else partial(_pooled, pool, images, part)
    with part.held():
        identity = {key: header[key] for key in (*DECISIVE, PACK) if key in header}
        header = part.header(header, {**identity, 'source': str(images.resolve())})
        made = _complete(part, header, tasks, run)
    return BuildSummary(len(tasks), made, time.monotonic() - start, part.manifest)


def _complete(part: Part, header: Record, tasks: list[Task], run: Run) -> int:
    """Degrades the images that an earlier run has not finished; returns their number."""
    verified = Verified(part.out, part.verified)
    lines, packer = finished_lines(part, header, tasks, verified)
    pending = sorted((task for task in tasks if task.image not in lines), key=place)
    logger.info(
        '%d images in %s: %d to degrade, %d already done', len(tasks), header['source'], len(pending), len(lines)
    )
    broken = _run(run(pending), len(pending), journal(part), lines, verified, packer)
    part.finish(header, sorted_lines(lines), broken)
    _report_broken(broken, len(tasks), len(lines), part.shard)
    if part.shard is None:
        write_manifest(part.manifest, header, sorted_lines(lines))
        journal(part).unlink(missing_ok=True)
    return len(pending)


def _pooled(pool: Pool, images: Path, part: Part, pending: list[Task]) -> Generator[_Result, None, None]:
    """Degrades images in the processes of a pool.

    An error or Ctrl-C before the first result removes a manifest that records no image, because its settings would
    otherwise be those of the folder. It stays if there are packs to make again, which would otherwise be foreign files.
    """
    if pending:
        try:
            with closing(pool(_degrading, pending, part.manifest, [images])) as results:
                yield from results
        except BaseException:
            kept = own_packs(part) or any(task.target.exists() for task in pending)
            if has_header_only(journal(part)) and not kept:
                journal(part).unlink()
            raise
        # A process that was killed and replaced leaves temporary files.
        part.clean(EXTENSIONS, [task.target for task in pending])


def _report_broken(broken: dict[str, str], images: int, finished: int, shard: Shard | None) -> None:
    if not broken:
        return
    listed = '\n'.join(f'  {name}: {reason}' for name, reason in sorted(broken.items()))
    kept = f'{the_others(finished, "done and kept")} '.lstrip()
    advice = 'Repair or remove the listed images and run the same command again to add the missing ones.'
    if shard:
        advice = (
            'Repair the listed images and run the same command again. Or remove them, and run the commands of all '
            'shards again, because the shards must be planned for the same images.'
        )
    raise DataError(f'{len(broken)} of {images} images cannot be used:\n{listed}\n{kept}{advice}')


def _header(images: Path, seed: int, recipe: Recipe, suffix: str | None) -> dict:
    """Returns the first line of the manifest, which contains everything that a copy depends on, except the images."""
    settings = json.loads(json.dumps(asdict(recipe)))  # lists instead of tuples, as read from a manifest
    # Values that older manifests imply are left out, so that the fingerprint equals the one in those manifests.
    stated = {name: value for name, value in settings.items() if name not in IMPLIED or value != IMPLIED[name]}
    return {
        'format': 'rass_mm low-quality copy, 1',
        'source': images.as_posix(),
        'seed': seed,
        'suffix': suffix,
        'fingerprint': json_sha256([seed, stated, suffix])[:16],
        'versions': {'rass_mm': __version__, 'opencv': cv2.__version__, 'numpy': np.__version__},
        'recipe': settings,
    }


def _run(
    results: Generator[_Result, None, None],
    count: int,
    partial_manifest: Path,
    lines: dict[str, dict],
    verified: Verified,
    packer: Packer | None = None,
) -> dict[str, str]:
    """Degrades the images and adds their lines to `lines` and to the partial manifest, and their files to `verified`.

    With a packer, the copies are moved to packs.

    Returns:
        A dict from the name of each image that cannot be used to the reason.

    Raises:
        DataError: the output folder cannot be written to.
    """
    broken = {}
    try:
        with closing(results):
            for task, line, reason, states in watched(_begun(results, packer), count, 'degrading', 'images'):
                if line is None:
                    broken[task.image] = reason
                    continue
                lines[task.image] = line
                append_line(partial_manifest, line)
                _keep(task, line, states, verified, packer)
        if packer:
            packer.write()
    except OSError as error:
        raise DataError(
            f'Cannot write to {partial_manifest.parent}: {error}. Finished images are kept. Free some disk space and '
            'run the same command again.'
        ) from error
    return broken


def _keep(task: Task, line: Record, states: tuple[State, ...], verified: Verified, packer: Packer | None) -> None:
    """Adds the source and the copy of an image to the verified files, and the copy to a pack if there is one."""
    if task.member is None:
        verified.add(task.source, states[0], line['sha256'])
    if packer:
        packer.add(task.staged)
    else:
        verified.add(task.target, states[1], line['crc32'])


def _begun(results: Iterable[_Result], packer: Packer | None) -> Iterator[_Result]:
    """Yields the results. The first one begins the packs."""
    for number, result in enumerate(results):
        if packer and number == 0:
            packer.begin()
        yield result


def _degrading() -> Callable[[Task], _Result]:
    """Returns the function that a process of a pool calls for each image."""
    return _degrade_file


def _degrade_file(task: Task) -> _Result:
    """Degrades one image and writes its copy."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 100] if task.target.suffix.lower() in ('.jpg', '.jpeg') else []
    source = task.source
    try:
        with extracted(task.member, source) as source:
            before, image, digest = read_source(source, task.max_pixels)
        parameters = draw(task.recipe, np.random.default_rng(task.seed), *image.shape[:2])
        encoded = cv2.imencode(task.target.suffix, apply(image, parameters), options)[1]
    except (DataError, cv2.error) as error:  # OpenCV's error: the image is larger than the file type allows
        reason = str(error).replace(str(source), str(task.origin))
        named = task.member is None or str(task.member) in reason
        return _Result(task, None, reason if named else f'{task.member}: {reason}')
    data = encoded.tobytes()
    write_bytes(task.target, data)
    line = {'image': task.image, 'output': task.output, 'seed': task.seed, 'sha256': digest, 'parameters': parameters}
    line['crc32'] = checksum(data)
    line |= task.member.identity() if task.member else {}
    return _Result(task, line, states=(before, file_state(task.target)))
