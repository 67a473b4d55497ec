"""Builder of a fixed low-quality copy of an image folder, with a manifest that reproduces every image.

The manifest has one JSON object per line: a header, then one line per image, sorted by path. The seed of an image is a
hash of the run's seed and the image's relative path, so the result does not depend on the order of the images or the
number of workers. During a run, lines are appended to a partial manifest. The final manifest is written when all images
are complete.
"""

import hashlib
import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from rass_mm.degradation.applying import apply
from rass_mm.degradation.copies import EXTENSIONS, Task, finished_lines, journal, sorted_lines
from rass_mm.degradation.drawing import draw
from rass_mm.degradation.recipe import OSEDIFF, Recipe
from rass_mm.errors import ConfigError, DataError, the_others
from rass_mm.files.atomic import write_bytes
from rass_mm.files.hashing import json_sha256
from rass_mm.files.images import needs_scaling, picture_of, to_bgr
from rass_mm.files.integrity import MAX_PIXELS, check_pixels, decoded
from rass_mm.files.manifest import append_line, checksum, write_manifest
from rass_mm.files.naming import linked_into
from rass_mm.files.regular import check_regular
from rass_mm.files.verified import State, Verified, file_state
from rass_mm.files.walking import chosen_files, described_left_out, walk
from rass_mm.jobs.part import Part
from rass_mm.jobs.shard import Shard
from rass_mm.parallel import run_jobs, watched
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


def build_lq_dataset(
    images: str | os.PathLike,
    out: str | os.PathLike,
    seed: int = 0,
    workers: int = 1,
    recipe: Recipe = OSEDIFF,
    suffix: str | None = '.png',
    max_pixels: int = MAX_PIXELS,
    shard: Shard | None = None,
) -> BuildSummary:
    """Writes a degraded copy of all images in a folder and keeps their relative paths. A killed run can be resumed.

    Args:
        images: Folder of clean images. Its subfolders are included, and links to folders are followed.
        out: Folder for the degraded images and `manifest.jsonl`.
        seed: Seed of the whole copy.
        workers: Number of processes; 1 uses this process.
        recipe: The recipe to draw from. Pass `override(OSEDIFF, {'version': 1})` to continue a copy of version 1.
        suffix: File type of the copies. None keeps the type of each image, which for JPEG adds one compression of
            quality 100 that the manifest does not list.
        max_pixels: Largest number of pixels of an image. A larger image is not decoded and is reported as unreadable.
        shard: The shard of the images to degrade, which `rass_mm.jobs.merge` merges with the others. None for all.

    Returns:
        A summary of the run.

    Raises:
        ConfigError: `workers` is less than 1 or `suffix` is not supported.
        DataError: The folders are not valid, `out` contains a copy with another seed, recipe, recipe version or suffix,
            or images are unreadable. In the last case, the readable images are still processed.
    """
    start = time.monotonic()
    images, out = Path(images), Path(out)
    if workers < 1:
        raise ConfigError(f'The number of workers is {workers}, but it must be at least 1.')
    plan = _plan(images, out, seed, recipe, suffix)
    part = Part(out, (task.image for task in plan), shard)
    tasks = [task._replace(max_pixels=max_pixels) for task in plan if part.has(task.image)]
    header = _header(images, seed, recipe, suffix)
    with part.held():
        header = part.header(header, {**{key: header[key] for key in DECISIVE}, 'source': str(images.resolve())})
        verified = Verified(out, part.verified)
        lines = finished_lines(part, header, tasks, verified)
        pending = [task for task in tasks if task.image not in lines]
        logger.info('%d images in %s: %d to degrade, %d already done', len(tasks), images, len(pending), len(lines))
        broken = _run(pending, workers, journal(part), lines, verified)
        part.finish(header, sorted_lines(lines), broken)
        _report_broken(broken, len(tasks), len(lines), shard)
        if shard is None:
            write_manifest(part.manifest, header, sorted_lines(lines))
            journal(part).unlink(missing_ok=True)
    return BuildSummary(len(tasks), len(pending), time.monotonic() - start, part.manifest)


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


def image_seed(seed: int, image: str) -> int:
    """Returns the seed of one image. It has 48 bits, because some JSON readers support integers only up to 53 bits."""
    return int.from_bytes(hashlib.sha256(f'{seed}/{image}'.encode('utf-8', 'surrogateescape')).digest()[:6], 'big')


def _plan(images: Path, out: Path, seed: int, recipe: Recipe, suffix: str | None) -> list[Task]:
    """Lists the images, sorted by relative path, and checks the folders.

    Raises:
        ConfigError: the file type is not supported.
        DataError: the image folder is missing or empty, or files in the output folder would conflict.
    """
    if not images.is_dir():
        raise DataError(f'The image folder {images} does not exist or is not a folder.')
    if images.resolve() in (out.resolve(), *out.resolve().parents):
        raise DataError(
            f'The output folder {out} is inside the image folder {images}. The next run would degrade the degraded '
            'images again. Choose an output folder outside of the image folder.'
        )
    if suffix is not None and suffix.lower() not in EXTENSIONS:
        raise ConfigError(f'Images of type {suffix} cannot be written. Choose one of {", ".join(EXTENSIONS)}.')
    names, left_out = chosen_files(images, walk(images), EXTENSIONS)
    for line in described_left_out(left_out):
        logger.warning(line)
    if not names:
        raise DataError(f'No images in {images} or its subfolders. Supported types: {", ".join(EXTENSIONS)}.')
    linked = linked_into(images, names, out)
    if linked is not None:
        raise DataError(
            f'{linked} is a link into the output folder {out}. The next run would degrade the degraded images again. '
            'Choose another output folder, or remove the link.'
        )
    tasks, owners = [], {}
    for name in names:
        output = name if suffix is None else Path(name).with_suffix(suffix).as_posix()
        if output in owners:
            raise DataError(
                f'{owners[output]} and {name} in {images} would both become {output}. Rename one of them, or keep the '
                'original file types with --ext keep.'
            )
        owners[output] = name
        tasks.append(Task(images / name, out / output, name, output, image_seed(seed, name), recipe))
    sources = {task.source.resolve() for task in tasks}
    overwritten = next((task.target for task in tasks if task.target.resolve() in sources), None)
    if overwritten is not None:
        raise DataError(f'{overwritten} is one of the images to degrade. Choose another output folder.')
    return tasks


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


def _run(tasks: list[Task], workers: int, partial: Path, lines: dict[str, dict], verified: Verified) -> dict[str, str]:
    """Degrades the images and adds their lines to `lines` and to the partial manifest, and their files to `verified`.

    Returns:
        A dict from the name of each image that cannot be used to the reason.

    Raises:
        DataError: the output folder cannot be written to.
    """
    broken = {}
    if not tasks:
        return broken
    try:
        results = run_jobs(_degrade_file, tasks, workers)
        for task, line, reason, states in watched(results, len(tasks), 'degrading', 'images'):
            if line is None:
                broken[task.image] = reason
                continue
            lines[task.image] = line
            append_line(partial, line)
            verified.add(task.source, states[0], line['sha256'])
            verified.add(task.target, states[1], line['crc32'])
    except OSError as error:
        raise DataError(
            f'Cannot write to {partial.parent}: {error}. Finished images are kept. Free some disk space and run the '
            'same command again.'
        ) from error
    return broken


class _Result(NamedTuple):
    """Result of one image: its manifest line and the states of its source and its copy, or None and a reason."""

    task: Task
    line: dict | None
    reason: str = ''
    states: tuple[State, ...] = ()


def _degrade_file(task: Task) -> _Result:
    """Degrades one image and writes its copy."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 100] if task.target.suffix.lower() in ('.jpg', '.jpeg') else []
    try:
        before = file_state(task.source)
        image, digest = read_image(task.source, task.max_pixels)
        parameters = draw(task.recipe, np.random.default_rng(task.seed), *image.shape[:2])
        encoded = cv2.imencode(task.target.suffix, apply(image, parameters), options)[1]
    except (DataError, OSError, cv2.error) as error:  # OpenCV's error: the image is larger than the file type allows
        return _Result(task, None, str(error))
    data = encoded.tobytes()
    write_bytes(task.target, data)
    line = {'image': task.image, 'output': task.output, 'seed': task.seed, 'sha256': digest, 'parameters': parameters}
    line['crc32'] = checksum(data)
    return _Result(task, line, states=(before, file_state(task.target)))


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, str]:
    """Reads an image like mmseg's loader, but raises an error for damaged files.

    Args:
        path: The image file.
        max_pixels: Largest number of pixels; a larger image is not decoded.

    Returns:
        The image, (H, W, 3) uint8 BGR, and the SHA-256 of the file.

    Raises:
        DataError: the image cannot be read. The message is the reason without the file name.
    """
    check_regular(path)
    try:
        data = path.read_bytes()
        check_pixels(data, max_pixels)
        if needs_scaling(data):
            image = to_bgr(picture_of(data, path, max_pixels).pixels)
            return image, hashlib.sha256(data).hexdigest()
        decoded(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error, DataError) as error:
        raise DataError(str(error).removeprefix(f'{path}: ')) from error
    if image is None:
        raise DataError('OpenCV cannot decode the image')
    return image, hashlib.sha256(data).hexdigest()
