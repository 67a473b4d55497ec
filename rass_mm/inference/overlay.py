"""Overlays of label maps over photos, with a legend of the classes that are present."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE, NARROWEST = 1600, 480
"""Longest side of an overlay, and its smallest width, in pixels."""
FONT = Path('fonts', 'ttf', 'DejaVuSans.ttf')
FONT_SIZE, LINE, SWATCH, GAP = 14, 22, 14, 8
INK = (20, 20, 20)

Color = tuple[int, int, int]


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    palette: Sequence[Color],
    shares: Mapping[int, float],
    opacity: float = 0.55,
) -> np.ndarray:
    """Draws a label map over a photo, and below it a legend of the classes that are present, largest share first.

    A photo with a side longer than `SIDE` is reduced. A photo narrower than `NARROWEST` is enlarged, so that the legend
    is legible.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) class ids.
        names: name of each class.
        palette: RGB colour of each class.
        shares: class id -> fraction of the pixels of the image, for each class that is present.
        opacity: weight of the class colours in [0, 1].

    Returns:
        (h, w, 3) uint8 RGB.
    """
    height, width = labels.shape
    factor = SIDE / max(height, width) if max(height, width) > SIDE else max(1, min(NARROWEST / width, SIDE / height))
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    photo = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)
    columns, rows = (np.arange(side) * whole // side for side, whole in zip(size, (width, height), strict=True))
    colors = np.asarray(palette, np.uint8)[labels[rows[:, None], columns]]
    painted = cv2.addWeighted(photo, 1 - opacity, colors, opacity, 0)
    strip = legend(max(size[0], NARROWEST), names, palette, shares)
    missing = strip.shape[1] - size[0]
    return np.vstack([cv2.copyMakeBorder(painted, 0, 0, 0, missing, cv2.BORDER_CONSTANT, value=(255,) * 3), strip])


def legend(width: int, names: Sequence[str], palette: Sequence[Color], shares: Mapping[int, float]) -> np.ndarray:
    """Draws a legend with the colour, name and share of each class in columns, as (h, width, 3) uint8 RGB."""
    entries = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    texts = [f'{names[label]}  {percent(share)}' for label, share in entries]
    widest = max((_font().getlength(text) for text in texts), default=0)
    column = min(math.ceil(widest) + SWATCH + 3 * GAP, width)
    columns = max(width // column, 1)
    lines = -(-len(texts) // columns)
    strip = Image.new('RGB', (width, lines * LINE + GAP), 'white')
    draw = ImageDraw.Draw(strip)
    for index, ((label, _), text) in enumerate(zip(entries, texts, strict=True)):
        x, y = index // lines * column + GAP, index % lines * LINE + GAP
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), fill=tuple(palette[label]), outline=INK)
        draw.text((x + SWATCH + GAP, y - 1), _shortened(text, column - SWATCH - 3 * GAP), fill=INK, font=_font())
    return np.asarray(strip)


def percent(share: float) -> str:
    """Formats a share as a percentage, e.g. '12.3 %'. A share below 0.05 % is shown as '< 0.1 %', not as 0."""
    return f'{100 * share:.1f} %' if share >= 0.0005 else '< 0.1 %'


def _shortened(text: str, width: int) -> str:
    while len(text) > 1 and _font().getlength(text) > width:
        text = text[:-2] + '…'
    return text


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / FONT), FONT_SIZE)
