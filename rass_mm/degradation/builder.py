"""Builder of a fixed low-quality copy of an image folder, with a manifest that replays every image.

The manifest is one JSON object per line: a header, then one line per image sorted by path. An image's seed is a hash of
the run's seed and the image's relative path, so neither the order nor the number of workers changes a byte of the
result. While a run is going, lines are appended to a partial manifest; the manifest appears when all images are made.
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

from rass_mm.degradation.recipe import OSEDIFF, VERSIONS, Recipe, apply, draw
from rass_mm.degradation.versions import manifest_version
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.atomic import write_bytes
from rass_mm.files.hashing import json_sha256
from rass_mm.files.integrity import decoded
from rass_mm.files.manifest import MANIFEST, append_line, read_manifest, remove_leftovers, write_manifest
from rass_mm.parallel import run_jobs, watched
from rass_mm.version import __version__

logger = logging.getLogger(__name__)

EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
PARTIAL = 'manifest.partial.jsonl'
IMPLIED = {'version': 1, 'jpeg_chroma': 'smooth'}
"""Values of the recipe's settings in manifests that are older than these settings."""


@dataclass(frozen=True)
class BuildSummary:
    """What a run did.

    Args:
        images: Number of images in the finished copy.
        made: How many of them this run made; the others were there from an earlier run.
        seconds: Duration of the run.
        manifest: The manifest's path.
    """

    images: int
    made: int
    seconds: float
    manifest: Path


class _Task(NamedTuple):
    """One image to degrade, as it is sent to a worker."""

    source: Path
    target: Path
    image: str
    output: str
    seed: int
    recipe: Recipe


def build_lq_dataset(
    images: str | os.PathLike,
    out: str | os.PathLike,
    seed: int = 0,
    workers: int = 1,
    recipe: Recipe = OSEDIFF,
    suffix: str | None = '.png',
) -> BuildSummary:
    """Makes a degraded copy of all images under a folder, keeping relative paths; a killed run resumes.

    Args:
        images: Folder of clean images, searched with its subfolders.
        out: Folder for the degraded images and `manifest.jsonl`.
        seed: Seed of the whole copy.
        workers: Number of processes; 1 works in this process.
        recipe: What to draw from; `override(OSEDIFF, {'version': 1})` continues copies of version 1.
        suffix: File type of the copies; None keeps each image's own type, which for JPEG adds one compression of
            quality 100 that the manifest does not list.

    Returns:
        What was done.

    Raises:
        DataError: The folders do not fit, `out` holds a copy of another seed, recipe or recipe version, or images are
            unreadable; the readable ones are made all the same.
    """
    start = time.monotonic()
    images, out = Path(images), Path(out)
    if workers < 1:
        raise ConfigError(f'The number of workers is {workers}; it must be 1 or more.')
    tasks = _plan(images, out, seed, recipe, suffix)
    header = _header(images, seed, recipe, suffix)
    lines = _resume(out, header, tasks)
    pending = [task for task in tasks if task.image not in lines]
    logger.info('%d images in %s: %d to make, %d already made', len(tasks), images, len(pending), len(lines))
    broken = _run(pending, workers, out / PARTIAL, lines)
    if broken:
        listed = '\n'.join(f'  {name}: {reason}' for name, reason in sorted(broken.items()))
        raise DataError(
            f'{len(broken)} of {len(tasks)} images cannot be used:\n{listed}\nThe other {len(lines)} are made and '
            'kept. Repair or remove the ones listed and run the same command again: only what is missing will be made.'
        )
    write_manifest(out / MANIFEST, header, _sorted(lines))
    (out / PARTIAL).unlink(missing_ok=True)
    return BuildSummary(len(tasks), len(pending), time.monotonic() - start, out / MANIFEST)


def image_seed(seed: int, image: str) -> int:
    """Seed of one image; 48 bits, because some JSON readers keep integers only up to 53."""
    return int.from_bytes(hashlib.sha256(f'{seed}/{image}'.encode('utf-8', 'surrogateescape')).digest()[:6], 'big')


def _plan(images: Path, out: Path, seed: int, recipe: Recipe, suffix: str | None) -> list[_Task]:
    """Lists the images, sorted by relative path, and refuses folders that cannot work."""
    if not images.is_dir():
        raise DataError(f'The image folder {images} does not exist or is not a folder.')
    if images.resolve() in (out.resolve(), *out.resolve().parents):
        raise DataError(
            f'The output folder {out} is inside the image folder {images}: the next run would degrade the degraded '
            'images again. Choose an output folder outside it.'
        )
    if suffix is not None and suffix.lower() not in EXTENSIONS:
        raise ConfigError(f'Cannot write images of type {suffix}; choose one of {", ".join(EXTENSIONS)}.')
    found = (path.relative_to(images) for path in images.rglob('*') if path.suffix.lower() in EXTENSIONS)
    names = sorted(path.as_posix() for path in found if not path.name.startswith('.') and (images / path).is_file())
    if not names:
        raise DataError(f'No images in {images} or its subfolders; looked for {", ".join(EXTENSIONS)}.')
    tasks, owners = [], {}
    for name in names:
        output = name if suffix is None else Path(name).with_suffix(suffix).as_posix()
        if output in owners:
            raise DataError(
                f'{owners[output]} and {name} in {images} would both become {output}. Rename one of them, or keep the '
                "images' own types (--ext keep)."
            )
        owners[output] = name
        tasks.append(_Task(images / name, out / output, name, output, image_seed(seed, name), recipe))
    return tasks


def _header(images: Path, seed: int, recipe: Recipe, suffix: str | None) -> dict:
    """First line of the manifest: all that a copy depends on besides the images."""
    settings = json.loads(json.dumps(asdict(recipe)))  # lists instead of tuples, as a reader of the manifest sees them
    # Without what older manifests imply, so that a copy of theirs has the fingerprint that they give it.
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


def _resume(out: Path, header: dict, tasks: list[_Task]) -> dict[str, dict]:
    """Lines of the images that are already made, after making `out` ready to go on from there."""
    earlier = [name for name in (MANIFEST, PARTIAL) if (out / name).exists()]
    made = {}
    for name in earlier:
        made.update(_read_manifest(out / name, header))
    foreign = [task.output for task in tasks if not earlier and task.target.exists()]
    if foreign:
        raise DataError(
            f'{out} has files that this run would overwrite, e.g. {foreign[0]}, but no {MANIFEST} that says how they '
            'were made. Choose an empty output folder.'
        )
    if (out / PARTIAL).exists():
        remove_leftovers(out, EXTENSIONS)
    stale = set(made) - {task.image for task in tasks}
    if stale:
        logger.warning('%d images in %s are no longer in the source, e.g. %s', len(stale), out, min(stale))
    lines = {task.image: made[task.image] for task in tasks if task.image in made and task.target.is_file()}
    if len(lines) < len(tasks):
        write_manifest(out / PARTIAL, header, _sorted(lines))
    return lines


def _read_manifest(path: Path, header: dict) -> dict[str, dict]:
    """Image lines of an earlier run by image; refuses a manifest of other settings."""
    old, lines = read_manifest(path)
    if old.get('fingerprint') != header['fingerprint']:
        raise DataError(
            f'{path} belongs to a copy with {_describe(old)}, but this run asks for {_describe(header)} '
            '(the fingerprint covers the recipe). Choose another output folder, delete this one, or ask for the same '
            f'settings as before{_version_option(old, header)}.'
        )
    if old['versions'] != header['versions']:
        logger.warning('%s was begun with %s; resuming with %s', path, old['versions'], header['versions'])
    return lines


def _describe(header: dict) -> str:
    known = dict(header)
    if 'recipe' in header:
        known |= {'recipe version': manifest_version(header), 'JPEG chroma': _jpeg_chroma(header)}
    names = ('seed', 'suffix', 'recipe version', 'JPEG chroma', 'fingerprint')
    return ', '.join(f'{name} {known.get(name, "unknown")}' for name in names)


def _jpeg_chroma(header: dict) -> str:
    return header['recipe'].get('jpeg_chroma', 'smooth')  # copies from before there was a choice do not name it


def _version_option(old: dict, header: dict) -> str:
    """How to ask for the recipe of an earlier copy; empty where it is the same or unknown."""
    if 'recipe' not in old:
        return ''
    version, options = manifest_version(old), ''
    if version != manifest_version(header) and version in VERSIONS:
        options += f' --recipe-version {version}'
    if _jpeg_chroma(old) != _jpeg_chroma(header):
        options += f' --jpeg-chroma {_jpeg_chroma(old)}'
    return options and f' (rass-mm make-lq{options})'


def _sorted(lines: dict[str, dict]) -> list[dict]:
    return [lines[image] for image in sorted(lines)]


def _run(tasks: list[_Task], workers: int, partial: Path, lines: dict[str, dict]) -> dict[str, str]:
    """Makes the images, adds their lines to `lines` and to the partial manifest; returns what cannot be used."""
    broken = {}
    if not tasks:
        return broken
    try:
        results = run_jobs(_degrade_file, tasks, workers)
        for image, line, reason in watched(results, len(tasks), 'degrading', 'images'):
            if line is None:
                broken[image] = reason
            else:
                lines[image] = line
                append_line(partial, line)
    except OSError as error:
        raise DataError(
            f'Cannot write to {partial.parent}: {error}. Finished images are kept: make room and run the same command '
            'again.'
        ) from error
    return broken


def _degrade_file(task: _Task) -> tuple[str, dict | None, str]:
    """Makes one image; returns its name and its manifest line, or None and why the image cannot be used."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 100] if task.target.suffix.lower() in ('.jpg', '.jpeg') else []
    try:
        image, digest = read_image(task.source)
        parameters = draw(task.recipe, np.random.default_rng(task.seed), *image.shape[:2])
        encoded = cv2.imencode(task.target.suffix, apply(image, parameters), options)[1]
    except (DataError, cv2.error) as error:  # OpenCV's: larger than a file type allows
        return task.image, None, str(error)
    write_bytes(task.target, encoded.tobytes())
    line = {'image': task.image, 'output': task.output, 'seed': task.seed, 'sha256': digest, 'parameters': parameters}
    return task.image, line, ''


def read_image(path: Path) -> tuple[np.ndarray, str]:
    """Reads an image as mmseg's loader does, but refuses a damaged one.

    Args:
        path: The image file.

    Returns:
        The image, (H, W, 3) uint8 BGR, and the SHA-256 of the file.
    """
    try:
        data = path.read_bytes()
        decoded(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise DataError(str(error)) from error
    if image is None:
        raise DataError('OpenCV cannot decode it')
    return image, hashlib.sha256(data).hexdigest()
