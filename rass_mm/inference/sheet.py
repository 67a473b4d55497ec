"""Draws contact sheets with thumbnails of all images, each beside its restored version."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rass_mm.errors import DataError
from rass_mm.files.images import read_picture
from rass_mm.inference.plan import Task
from rass_mm.visualization import captioned, grid, write_bgr

SIDE, GAP = 192, 4
PAIRS_PER_ROW = 4
SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp')


def check_sheet(path: str | os.PathLike, tasks: Sequence[Task] = ()) -> Path:
    """Checks that a contact sheet can be written to a path, and returns the path.

    Args:
        path: the image file to write.
        tasks: the images of the job.

    Raises:
        DataError: the suffix is not one of `SUFFIXES`, or the sheet would overwrite an image or an output.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f'{path}: a contact sheet must be an image file. Use one of {", ".join(SUFFIXES)}.')
    for task in tasks:
        for role, file in (('one of the images', task.source), ('an output of this command', task.target)):
            if file.resolve() == path.resolve():
                raise DataError(f'The contact sheet {path} would overwrite {role}. Choose another path with --sheet.')
    return path


def write_sheet(path: str | os.PathLike, tasks: Sequence[Task]) -> None:
    """Writes a contact sheet of all images that have an output: input left, restored image right, name above.

    Args:
        path: the image file to write.
        tasks: the images, see `plan_files`.
    """
    cells = [_pair(task) for task in tasks if task.target.is_file()]
    if not cells:
        return
    write_bgr(check_sheet(path), grid(cells, PAIRS_PER_ROW))


def _pair(task: Task) -> np.ndarray:
    """Draws the thumbnails of one image and its output side by side, as (h, w, 3) uint8 BGR."""
    pair = np.full((SIDE, 2 * SIDE + GAP, 3), 255, np.uint8)
    for left, file in ((0, task.source), (SIDE + GAP, task.target)):
        thumb = _thumbnail(read_picture(file, sys.maxsize).pixels)
        pair[: thumb.shape[0], left : left + thumb.shape[1]] = thumb
    return captioned(pair, task.name[-48:], border=GAP)


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Converts (H, W, 3) float RGB in [0, 1] to uint8 BGR, resized to fit into a square of `SIDE` pixels."""
    factor = SIDE / max(pixels.shape[:2])
    size = tuple(max(round(side * factor), 1) for side in pixels.shape[1::-1])
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    return np.rint(small.clip(0, 1)[..., ::-1] * 255).astype(np.uint8)
