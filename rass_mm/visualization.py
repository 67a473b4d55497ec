"""Drawing of comparison pictures: captions, grids, heat maps, coloured labels, and pages with a legend.

Images have shape (H, W, 3) and type uint8. If a docstring does not mention BGR, both RGB and BGR are accepted.
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
    """Arranges images of equal size in rows and returns one image. White images fill up the last row."""
    columns = min(columns, len(cells))
    filled = [*cells, *[np.full_like(cells[0], 255)] * (-len(cells) % columns)]
    return np.vstack([np.hstack(filled[start : start + columns]) for start in range(0, len(filled), columns)])


def write_bgr(target: Path, image: np.ndarray) -> None:
    """Writes a BGR image atomically. The suffix of `target` determines the format.

    Raises:
        OSError: OpenCV cannot write the file.
    """
    try:
        encoded = cv2.imencode(Path(target).suffix, image)[1]
    except cv2.error as error:
        raise OSError(f'{target} could not be written ({error}).') from error
    write_bytes(target, encoded.tobytes())  # OpenCV itself cannot write to names that are not UTF-8


def comparison_page(
    target: Path, titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]], classes: Sequence[str], palette: Colors
) -> None:
    """Writes a page of pictures, enlarged two times, with titles above and a legend of the classes below.

    Args:
        target: the image file to write.
        titles: one title per column.
        rows: one list of (H, W, 3) uint8 BGR pictures per row. All pictures have the same size.
        classes: class names in the legend.
        palette: one RGB colour per class.
    """
    lines = [np.hstack([_framed(cell) for cell in row]) for row in rows]
    width = lines[0].shape[1]
    write_bgr(target, np.vstack([_header(titles, width), *lines, legend(width, classes, palette)]))


def colored(label: np.ndarray, palette: Colors) -> np.ndarray:
    """Converts (H, W) class ids, 0 to 255, to (H, W, 3) uint8 BGR colours. Ids without a colour become white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(palette)] = np.array(palette, np.uint8)[:, ::-1]
    return table[label]


def heat_colors(values: np.ndarray) -> np.ndarray:
    """Converts (H, W) values in [0, 1] to (H, W, 3) uint8 BGR colours, from black at 0 to yellow at 1."""
    return cv2.applyColorMap(np.rint(values.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)


def heated(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Overlays a BGR image with the colours of an (H, W) heat map of the same size, which is divided by its maximum."""
    return cv2.addWeighted(image, 0.4, heat_colors(heat / max(float(heat.max()), 1e-12)), 0.6, 0)


def labelled(image: np.ndarray, text: str) -> np.ndarray:
    """Returns a copy of an image with a short white text in its lower left corner."""
    image = image.copy()
    cv2.putText(image, text, (3, image.shape[0] - 4), **{**TEXT, 'fontScale': 0.35, 'color': WHITE})
    return image


def legend(width: int, classes: Sequence[str], palette: Colors) -> np.ndarray:
    """Returns an (h, width, 3) uint8 BGR image with the colour and the name of each class. `palette` is RGB."""
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
