"""Drawing of comparison pictures: captions, grids, heat maps, coloured labels, and pages with a legend.

Images are (H, W, 3) uint8. Functions that add no colours accept both RGB and BGR.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rass_mm.files.atomic import write_bytes

SCALE = 2
GAP = 6
WHITE = (255, 255, 255)
CAPTION = {1: 18, 2: 40}
"""Height in pixels of the strip above a picture, by its number of text lines."""
TEXT = dict(fontFace=cv2.FONT_HERSHEY_SIMPLEX, fontScale=0.45, color=(20, 20, 20), thickness=1, lineType=cv2.LINE_AA)
NOTE = {**TEXT, 'fontScale': 0.36}

Colors = Sequence[Sequence[int]]
"""One RGB colour per class, with values of 0 to 255."""


def captioned(image: np.ndarray, title: str, note: str = '', border: int = GAP) -> np.ndarray:
    """Returns an image in a white frame, with one or two lines of text above it."""
    top = CAPTION[2 if note else 1]
    cell = cv2.copyMakeBorder(image, top, border, border, border, cv2.BORDER_CONSTANT, value=WHITE)
    cv2.putText(cell, title, (border, 14), **(TEXT if note else {**TEXT, 'fontScale': 0.4}))
    if note:
        cv2.putText(cell, note, (border, 33), **NOTE)
    return cell


def grid(cells: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Arranges cells of equal size in rows. The last row is filled up with white cells."""
    columns = min(columns, len(cells))
    filled = [*cells, *[np.full_like(cells[0], 255)] * (-len(cells) % columns)]
    return np.vstack([np.hstack(filled[start : start + columns]) for start in range(0, len(filled), columns)])


def write_bgr(target: Path, image: np.ndarray) -> None:
    """Writes a BGR picture atomically, in the format given by the suffix.

    Raises:
        OSError: OpenCV cannot write the file.
    """
    try:
        encoded = cv2.imencode(Path(target).suffix, image)[1]
    except cv2.error as error:
        raise OSError(f'{target} could not be written ({error})') from error
    write_bytes(target, encoded.tobytes())  # OpenCV itself cannot write to names that are not UTF-8


def comparison_page(
    target: Path, titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]], classes: Sequence[str], palette: Colors
) -> None:
    """Writes a page of pictures with titles above and a legend of the classes below.

    Args:
        target: the PNG to write.
        titles: one title per column.
        rows: one (h, w, 3) uint8 BGR picture per row and column, all of the same size.
        classes: class names in the legend.
        palette: one colour per class.
    """
    lines = [np.hstack([_framed(cell) for cell in row]) for row in rows]
    width = lines[0].shape[1]
    write_bgr(target, np.vstack([_header(titles, width), *lines, legend(width, classes, palette)]))


def colored(label: np.ndarray, palette: Colors) -> np.ndarray:
    """Converts (H, W) class ids to (H, W, 3) uint8 BGR colours of the palette. Unknown ids become white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(palette)] = np.array(palette, np.uint8)[:, ::-1]
    return table[label]


def heat_colors(values: np.ndarray) -> np.ndarray:
    """Converts (H, W) values in [0, 1] to (H, W, 3) uint8 BGR colours, from black at 0 to yellow at 1."""
    return cv2.applyColorMap(np.rint(values.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)


def heated(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Overlays an image (H, W, 3), uint8 BGR, with the colours of a heat map (H, W) that is scaled to its maximum."""
    return cv2.addWeighted(image, 0.4, heat_colors(heat / max(float(heat.max()), 1e-12)), 0.6, 0)


def labelled(image: np.ndarray, text: str) -> np.ndarray:
    """Returns a copy of an image (H, W, 3) with a short text in its lower left corner."""
    image = image.copy()
    cv2.putText(image, text, (3, image.shape[0] - 4), **{**TEXT, 'fontScale': 0.35, 'color': WHITE})
    return image


def legend(width: int, classes: Sequence[str], palette: Colors) -> np.ndarray:
    """Returns a strip (h, width, 3), uint8 BGR, with the colour and the name of each class."""
    per_line = 6
    lines = -(-len(classes) // per_line)
    strip = np.full((22 * lines + 8, width, 3), 255, np.uint8)
    for index, (name, color) in enumerate(zip(classes, palette, strict=True)):
        x, y = index % per_line * width // per_line + GAP, index // per_line * 22 + 6
        cv2.rectangle(strip, (x, y), (x + 14, y + 14), color[::-1], -1)
        cv2.putText(strip, name, (x + 20, y + 12), **TEXT)
    return strip


def _framed(cell: np.ndarray) -> np.ndarray:
    big = cv2.resize(cell, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
    return cv2.copyMakeBorder(big, GAP // 2, GAP // 2, GAP // 2, GAP // 2, cv2.BORDER_CONSTANT, value=WHITE)


def _header(titles: Sequence[str], width: int) -> np.ndarray:
    strip = np.full((24, width, 3), 255, np.uint8)
    for index, title in enumerate(titles):
        cv2.putText(strip, title, (index * width // len(titles) + GAP, 17), **TEXT)
    return strip
