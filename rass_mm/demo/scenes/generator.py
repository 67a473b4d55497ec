"""Labelled outdoor scenes drawn from a seed, for training and testing without downloads."""

import json
import multiprocessing
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from rass_mm.datasets.scenes import PALETTE, SCENE_CLASSES
from rass_mm.demo.scenes.backdrop import (
    paint_hill,
    paint_mountain,
    paint_sky,
    paint_treeline,
    sample_camera,
    sample_light,
)
from rass_mm.demo.scenes.canvas import SUPERSAMPLING, Canvas, Stage
from rass_mm.demo.scenes.ground import paint_ground
from rass_mm.demo.scenes.places import sample_plan
from rass_mm.demo.scenes.plan import Plan
from rass_mm.demo.scenes.shapes import foliage
from rass_mm.errors import DataError
from rass_mm.files.atomic import atomic_path, write_text
from rass_mm.files.locks import held
from rass_mm.files.manifest import remove_leftovers
from rass_mm.files.schemas import read_json

__all__ = ['GENERATOR_VERSION', 'make_scene', 'scene_seed', 'write_scenes']

GENERATOR_VERSION = 1  # increase it when changes of the drawing code change the images
SMALLEST, LARGEST = 32, 512


def make_scene(seed: int, height: int = 128, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene.

    Args:
        seed: any non-negative integer; equal seeds and sizes produce identical bytes.
        height: height of the image in pixels, 32 to 512.
        width: width of the image in pixels, 32 to 512.

    Returns:
        The image, uint8 (height, width, 3) BGR, and the label, uint8 (height, width), an index into
        `SCENE_CLASSES` for every pixel.

    Raises:
        DataError: the size is out of range.
    """
    _check_size(height, width)
    rng = np.random.Generator(np.random.PCG64(seed))
    tall, wide = height * SUPERSAMPLING, width * SUPERSAMPLING
    light, camera = sample_light(rng), sample_camera(rng, tall, wide)
    stage = Stage(camera, light, Canvas(tall, wide), rng)
    plan = sample_plan(stage)
    _paint_backdrop(plan)
    paint_ground(stage, plan.terrain, [thing.shadow for thing in plan.things if thing.shadow is not None])
    for thing in sorted(plan.things, key=lambda thing: -thing.depth):
        thing.draw()
    return _develop(stage, height, width), stage.canvas.labels()


def _check_size(height: int, width: int) -> None:
    if not (SMALLEST <= height <= LARGEST and SMALLEST <= width <= LARGEST):
        raise DataError(
            f'A scene of {height}x{width} pixels cannot be drawn: both sides must be {SMALLEST} to {LARGEST}. '
            'Choose a size in this range, and resize in the pipeline if needed.'
        )


def _paint_backdrop(plan: Plan) -> None:
    """Paints the sky and the distant landscape."""
    stage, open_land = plan.stage, plan.open_land
    paint_sky(stage)
    if stage.camera.horizon < 4:
        return
    likely = 0.7 if open_land else 0.25
    if stage.chance(likely):
        for share, depth in ((stage.uniform(0.12, 0.3), 420), (stage.uniform(0.04, 0.14), 220)):
            if stage.chance(0.75):
                paint_mountain(stage, share, depth)
    if open_land and stage.chance(0.5):
        paint_hill(stage, stage.uniform(0.02, 0.10), plan.terrain.colours['grass'])
    if stage.chance(0.65):
        paint_treeline(stage, stage.uniform(0.015, 0.07), foliage(stage.rng, plan.season))


def _develop(stage: Stage, height: int, width: int) -> np.ndarray:
    """Averages the image to the final size and applies the colour cast of the time of day."""
    small = cv2.resize(stage.canvas.image, (width, height), interpolation=cv2.INTER_AREA)
    small = np.clip(small * stage.light.cast, 0, 1) ** np.float32(0.85)
    return np.ascontiguousarray(np.rint(small[..., ::-1] * 255).astype(np.uint8))


def scene_seed(seed: int, split: str, index: int) -> int:
    """Computes the 128-bit seed of a scene from the seed of the data set, the split and the index of the scene."""
    words = np.random.SeedSequence([seed, zlib.crc32(split.encode()), index]).generate_state(2, np.uint64)
    return int(words[0]) << 64 | int(words[1])


def write_scenes(
    out: Path,
    counts: dict[str, int] | None = None,
    seed: int = 0,
    size: tuple[int, int] = (128, 128),
    workers: int = 1,
) -> None:
    """Writes a data set in mmseg's layout: `img_dir/{split}/{index:05d}.png`, `ann_dir/...` and `scenes.json`.

    `scenes.json` is written last and marks a complete set, for which a second call with the same settings returns
    immediately. Without it, all scenes are drawn again with identical bytes.

    Args:
        out: output folder, created if missing.
        counts: number of scenes per split; None draws 400 for 'train' and 100 for 'val'.
        seed: seed of the data set.
        size: height and width of a scene in pixels.
        workers: number of processes; 1 draws in this process.

    Raises:
        DataError: the folder contains another set or other files, or a setting is out of range.
    """
    out, counts = Path(out), {'train': 400, 'val': 100} if counts is None else dict(counts)
    _check_size(*size)
    if seed < 0 or any(count < 0 for count in counts.values()):
        raise DataError(f'The seed and the counts must not be negative, but are {seed} and {counts}.')
    settings = {
        'generator_version': GENERATOR_VERSION,
        'classes': list(SCENE_CLASSES),
        'palette': [list(colour) for colour in PALETTE],
        'seed': seed,
        'size': list(size),
        'counts': counts,
    }
    with held(out):
        if _already_written(out, settings):
            return
        remove_leftovers(out, ['.png'])
        _refuse_foreign_files(out, counts)
        jobs = [(out, split, index, seed, size) for split, count in counts.items() for index in range(count)]
        for _ in track(_draw_all(jobs, workers), 'Drawing scenes', len(jobs), disable=not Console().is_terminal):
            pass
        write_text(out / 'scenes.json', json.dumps(settings, indent=1) + '\n')


def _already_written(out: Path, settings: dict) -> bool:
    """Returns whether the folder contains exactly this set. Raises a DataError if it contains another set."""
    index = out / 'scenes.json'
    if not index.exists():
        return False
    found = read_json(index, dict[str, Any], f'Remove the folder {out} and write the scenes again.')
    differing = [key for key in settings if found.get(key) != settings[key]]
    if differing:
        details = '; '.join(f'{key} is {found.get(key)}, not {settings[key]}' for key in differing)
        raise DataError(
            f'{out} contains another set of scenes: {details}. Remove the folder, choose another one, or use the '
            'settings in its scenes.json.'
        )
    return True


def _refuse_foreign_files(out: Path, counts: dict[str, int]) -> None:
    """Raises a DataError if the folder contains other files, which the data set would read as scenes."""
    ours = {f'{split}/{index:05d}.png' for split, count in counts.items() for index in range(count)}
    for folder in (out / 'img_dir', out / 'ann_dir'):
        files = (path for path in folder.rglob('*') if path.is_file() and not path.name.startswith('.'))
        foreign = [path for path in files if path.relative_to(folder).as_posix() not in ours]
        if foreign:
            raise DataError(
                f'{out} has no scenes.json, but contains {len(foreign)} files that are not part of this set, such as '
                f'{min(foreign)}. Remove the folder or choose another one.'
            )


def _draw_all(jobs: list[tuple], workers: int) -> Iterator[None]:
    if workers <= 1:
        yield from map(_draw_one, jobs)
        return
    # Forking a process that has run OpenCV or torch threads can hang, so processes are spawned.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(_draw_one, jobs, chunksize=8)


def _draw_one(job: tuple[Path, str, int, int, tuple[int, int]]) -> None:
    """Draws a scene and writes its image and label."""
    out, split, index, seed, size = job
    pair = make_scene(scene_seed(seed, split, index), *size)
    for folder, pixels in zip(('img_dir', 'ann_dir'), pair, strict=True):
        target = out / folder / split / f'{index:05d}.png'
        with atomic_path(target) as temporary:
            if not cv2.imwrite(str(temporary), pixels):
                raise DataError(
                    f'{target} cannot be written. Check the free disk space and the permissions of the folder.'
                )
