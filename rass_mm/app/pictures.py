"""Pictures and tables of the page: images of a size that fits a window, coloured masks, shares of classes."""

from collections.abc import Mapping
from html import escape

import cv2
import numpy as np

from rass_mm.inference.overlay import percent
from rass_mm.inference.results import Segmentation
from rass_mm.visualization import heated

LEAST, MOST = 512, 1280
"""Range of the longest side of a shown image in pixels."""
OPACITY = 0.6


def shown(image: np.ndarray) -> np.ndarray:
    """Resizes an image (H, W, 3) uint8 for a page, to a longest side of `LEAST` to `MOST` pixels.

    A small image is enlarged by an integer factor, so that its pixels stay visible as they are.
    """
    size, method = _shown_size(image.shape[:2])
    return image if size == image.shape[:2] else cv2.resize(image, size[::-1], interpolation=method)


def _shown_size(size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Returns the (height, width) of a shown image, and the interpolation."""
    longest = max(size)
    if longest > MOST:
        height, width = (max(round(side * MOST / longest), 1) for side in size)
        return (height, width), cv2.INTER_AREA
    factor = max(LEAST // longest, 1)
    return (size[0] * factor, size[1] * factor), cv2.INTER_NEAREST


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Converts (H, W, 3) float RGB in [0, 1] to uint8."""
    return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)


def masks(found: Segmentation) -> tuple[np.ndarray, list[tuple[np.ndarray, str]]]:
    """Returns a shown image, (h, w, 3) uint8 RGB, and a mask (h, w) in [0, `OPACITY`] with its name for each class.

    The class with the largest share is first.
    """
    image = shown(found.image)
    labels = cv2.resize(found.labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    ordered = sorted(found.counts, key=lambda label: -found.counts[label])
    return image, [((labels == label) * np.float32(OPACITY), found.classes[label]) for label in ordered]


def colors(found: Mapping[str, tuple[int, int, int]]) -> dict[str, str]:
    """Converts RGB colours to '#rrggbb'."""
    return {name: '#' + ''.join(f'{value:02x}' for value in color) for name, color in found.items()}


def heat_map(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Draws a map (H, W) over an image (H, W, 3) uint8 RGB, relative to its maximum. Returns the shown RGB image."""
    return shown(np.ascontiguousarray(heated(image[..., ::-1], values)[..., ::-1]))


def shares_table(found: Mapping[str, Segmentation]) -> str:
    """Returns an HTML table of the shares of all classes that are present, one column per segmentor.

    Args:
        found: title of a column -> label map. The rows are sorted by the shares of the first.
    """
    first = next(iter(found.values()))
    colored = {name: color for one in found.values() for name, color in zip(one.classes, one.palette, strict=True)}
    names = dict.fromkeys([*first.shares, *(name for one in found.values() for name in one.shares)])
    head = ''.join(f'<th scope="col">{escape(title)}</th>' for title in found)
    rows = [_row(name, colors(colored)[name], [one.shares.get(name, 0) for one in found.values()]) for name in names]
    return f'<table class="shares"><tr><th scope="col">Class</th>{head}</tr>{"".join(rows)}</table>'


def _row(name: str, color: str, shares: list[float]) -> str:
    bar = '<span class="bar" style="width:{:.2f}%;background:{}"></span><span class="share">{}</span>'
    cells = ''.join(
        f'<td>{bar.format(100 * share, color, percent(share)) if share else "none"}</td>' for share in shares
    )
    return f'<tr><th scope="row"><i style="background:{color}"></i>{escape(name)}</th>{cells}</tr>'
