"""A contact sheet: every image beside its restored one, small, on one picture."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rass_mm.errors import DataError
from rass_mm.files.atomic import atomic_path
from rass_mm.files.images import read_picture
from rass_mm.inference.plan import Task

SIDE, GAP, CAPTION = 192, 4, 16
PAIRS_PER_ROW = 4
SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp')


def check_sheet(path: str | os.PathLike) -> Path:
    """The sheet's path.

    Raises:
        DataError: its suffix is no picture's.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f'{path}: a contact sheet is a picture; give it one of {", ".join(SUFFIXES)}.')
    return path


def write_sheet(path: str | os.PathLike, tasks: Sequence[Task]) -> None:
    """Writes the sheet of all tasks whose output exists: input left, restored right, the name above.

    Args:
        path: the picture to write.
        tasks: the images, see `plan_files`.
    """
    cells = [_pair(task) for task in tasks if task.target.is_file()]
    if not cells:
        return
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % min(PAIRS_PER_ROW, len(cells)))
    rows = [np.hstack(cells[start : start + PAIRS_PER_ROW]) for start in range(0, len(cells), PAIRS_PER_ROW)]
    with atomic_path(check_sheet(path)) as temporary:
        cv2.imwrite(str(temporary), np.vstack(rows))


def _pair(task: Task) -> np.ndarray:
    """(h, w, 3) uint8 BGR cell."""
    cell = np.full((SIDE + CAPTION + GAP, 2 * SIDE + 3 * GAP, 3), 255, np.uint8)
    cv2.putText(cell, task.name[-48:], (GAP, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (20, 20, 20), 1, cv2.LINE_AA)
    for left, file in ((GAP, task.source), (2 * GAP + SIDE, task.target)):
        thumb = _thumbnail(read_picture(file).pixels)
        cell[CAPTION : CAPTION + thumb.shape[0], left : left + thumb.shape[1]] = thumb
    return cell


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) float RGB in [0, 1] to uint8 BGR that fits a square of `SIDE`."""
    factor = SIDE / max(pixels.shape[:2])
    size = tuple(max(round(side * factor), 1) for side in pixels.shape[1::-1])
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    return np.rint(small.clip(0, 1)[..., ::-1] * 255).astype(np.uint8)
