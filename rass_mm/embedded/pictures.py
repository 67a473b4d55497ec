"""One picture that shows what the models see and say: input, predictions, ground truth, side by side."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rass_mm.atomic import atomic_path
from rass_mm.embedded.scenes import PALETTE, SCENE_CLASSES

SCALE = 2
GAP = 6
TEXT = dict(fontFace=cv2.FONT_HERSHEY_SIMPLEX, fontScale=0.45, color=(20, 20, 20), thickness=1, lineType=cv2.LINE_AA)


def comparison_page(target: Path, scenes: Path, predictions: dict[str, Path], count: int = 6) -> None:
    """Writes a page: a row per scene; degraded input, each system's prediction, ground truth, clean image; a legend.

    Args:
        target: the PNG to write.
        scenes: the scene data set with its degraded copy.
        predictions: title -> folder of label maps named like the images.
        count: scenes shown, evenly spaced over the validation split.
    """
    names = sorted(file.name for file in (scenes / 'ann_dir' / 'val').glob('*.png'))
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, count).round().astype(int)]
    titles = ['degraded input', *predictions, 'ground truth', 'clean image']
    rows = [_row(name, scenes, list(predictions.values())) for name in chosen]
    page = np.vstack([_header(titles, rows[0].shape[1]), *rows, _legend(rows[0].shape[1])])
    with atomic_path(target) as temporary:
        cv2.imwrite(str(temporary), page)


def colored(label: np.ndarray) -> np.ndarray:
    """(H, W) class ids to (H, W, 3) uint8 BGR in the palette; unknown ids are white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(PALETTE)] = np.array(PALETTE, np.uint8)[:, ::-1]
    return table[label]


def _row(name: str, scenes: Path, folders: Sequence[Path]) -> np.ndarray:
    def read(file: Path) -> np.ndarray:
        return cv2.imread(str(file), cv2.IMREAD_UNCHANGED)

    truth = read(scenes / 'ann_dir' / 'val' / name)
    cells = [read(scenes / 'img_lq' / 'val' / name), *(colored(read(folder / name)) for folder in folders)]
    cells += [colored(truth), read(scenes / 'img_dir' / 'val' / name)]
    return np.hstack([_framed(cell) for cell in cells])


def _framed(cell: np.ndarray) -> np.ndarray:
    big = cv2.resize(cell, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
    return cv2.copyMakeBorder(big, GAP // 2, GAP // 2, GAP // 2, GAP // 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _header(titles: Sequence[str], width: int) -> np.ndarray:
    strip = np.full((24, width, 3), 255, np.uint8)
    for index, title in enumerate(titles):
        cv2.putText(strip, title, (index * width // len(titles) + GAP, 17), **TEXT)
    return strip


def _legend(width: int) -> np.ndarray:
    per_line = 6
    lines = -(-len(SCENE_CLASSES) // per_line)
    strip = np.full((22 * lines + 8, width, 3), 255, np.uint8)
    for index, (name, color) in enumerate(zip(SCENE_CLASSES, PALETTE, strict=True)):
        x, y = index % per_line * width // per_line + GAP, index // per_line * 22 + 6
        cv2.rectangle(strip, (x, y), (x + 14, y + 14), color[::-1], -1)
        cv2.putText(strip, name, (x + 20, y + 12), **TEXT)
    return strip
