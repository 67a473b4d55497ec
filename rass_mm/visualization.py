"""One picture that shows what the models see and say: input, predictions, ground truth, side by side."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rass_mm.datasets.scenes import PALETTE, SCENE_CLASSES
from rass_mm.files.atomic import atomic_path

SCALE = 2
GAP = 6
TEXT = dict(fontFace=cv2.FONT_HERSHEY_SIMPLEX, fontScale=0.45, color=(20, 20, 20), thickness=1, lineType=cv2.LINE_AA)


Colors = Sequence[Sequence[int]]
"""RGB, 0..255, one per class."""


def comparison_page(
    target: Path,
    titles: Sequence[str],
    rows: Sequence[Sequence[np.ndarray]],
    classes: Sequence[str] = SCENE_CLASSES,
    palette: Colors = PALETTE,
) -> None:
    """Writes a page of pictures with titles above and a legend of the classes below.

    Args:
        target: the PNG to write.
        titles: one per column.
        rows: per row, one (h, w, 3) uint8 BGR picture per column; all of one size.
        classes: names in the legend.
        palette: the colour of each.
    """
    lines = [np.hstack([_framed(cell) for cell in row]) for row in rows]
    width = lines[0].shape[1]
    page = np.vstack([_header(titles, width), *lines, _legend(width, classes, palette)])
    with atomic_path(target) as temporary:
        cv2.imwrite(str(temporary), page)


def colored(label: np.ndarray, palette: Colors = PALETTE) -> np.ndarray:
    """(H, W) class ids to (H, W, 3) uint8 BGR in the palette; unknown ids are white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(palette)] = np.array(palette, np.uint8)[:, ::-1]
    return table[label]


def heated(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map (H, W), scaled to its maximum, as colours over an image (H, W, 3) uint8 BGR."""
    scaled = np.clip(heat / max(float(heat.max()), 1e-12), 0, 1)
    colors = cv2.applyColorMap((255 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.addWeighted(image, 0.4, colors, 0.6, 0)


def labelled(image: np.ndarray, text: str) -> np.ndarray:
    """A copy of an image (H, W, 3) with a short text in its lower left corner."""
    image = image.copy()
    cv2.putText(image, text, (3, image.shape[0] - 4), **{**TEXT, 'fontScale': 0.35, 'color': (255, 255, 255)})
    return image


def _framed(cell: np.ndarray) -> np.ndarray:
    big = cv2.resize(cell, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
    return cv2.copyMakeBorder(big, GAP // 2, GAP // 2, GAP // 2, GAP // 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _header(titles: Sequence[str], width: int) -> np.ndarray:
    strip = np.full((24, width, 3), 255, np.uint8)
    for index, title in enumerate(titles):
        cv2.putText(strip, title, (index * width // len(titles) + GAP, 17), **TEXT)
    return strip


def _legend(width: int, classes: Sequence[str], palette: Colors) -> np.ndarray:
    per_line = 6
    lines = -(-len(classes) // per_line)
    strip = np.full((22 * lines + 8, width, 3), 255, np.uint8)
    for index, (name, color) in enumerate(zip(classes, palette, strict=True)):
        x, y = index % per_line * width // per_line + GAP, index // per_line * 22 + 6
        cv2.rectangle(strip, (x, y), (x + 14, y + 14), color[::-1], -1)
        cv2.putText(strip, name, (x + 20, y + 12), **TEXT)
    return strip
