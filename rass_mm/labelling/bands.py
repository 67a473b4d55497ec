"""Label maps from logits a few rows at a time. At once, the logits of 150 classes and 12 megapixels would take 7 GB.

Decode heads return coarse maps; only the upsampled maps are large. `resized_rows` upsamples any rows on demand, and
`Labels` converts consecutive bands of rows into a label map.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rass_mm.devices import exact_dtype

Rows = Callable[[int, int], Tensor]
"""Maps (top, bottom) to the logits (B, K, bottom - top, W) of these rows."""
BAND = 64
CHUNK_VALUES = 2**25
"""Approximate number of logits that are upsampled at once: 128 MB in float32."""


def resized_rows(
    x: Tensor,
    size: tuple[int, int],
    top: int,
    bottom: int,
    align_corners: bool = False,
    whole: tuple[int, int] | None = None,
) -> Tensor:
    """Computes only the rows `top` to `bottom` of `F.interpolate(x, size, mode='bilinear')`.

    Args:
        x: (B, C, h, w) map to resize, or only the rows that are needed if `whole` is given.
        size: (H, W) of the resized map.
        top: index of the first row to compute, in [0, H).
        bottom: index after the last row to compute.
        align_corners: as in `F.interpolate`.
        whole: index of the first row of `x` in the whole map, and the height of that map; None if `x` is the whole map.

    Returns:
        (B, C, bottom - top, W).
    """
    if whole is None and (top, bottom) == (0, size[0]):
        return F.interpolate(x, size, mode='bilinear', align_corners=align_corners)
    first, height = whole or (0, x.shape[-2])
    low, high, fraction = source_rows(height, size[0], top, bottom, align_corners, x.device)
    rows = torch.lerp(x[..., low - first, :], x[..., high - first, :], fraction.to(x)[:, None])
    return F.interpolate(rows, (bottom - top, size[1]), mode='bilinear', align_corners=align_corners)


def source_rows(
    height: int, target: int, top: int, bottom: int, align_corners: bool, device: torch.device | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the source rows that bilinear interpolation combines for each row of the resized map.

    Args:
        height: number of source rows.
        target: number of rows of the resized map.
        top: index of the first row of the resized map.
        bottom: index after the last row.
        align_corners: as in `F.interpolate`.
        device: device of the result; None is the CPU.

    Returns:
        Three tensors with one value for each row from `top` to `bottom - 1`: the index of the source row above it, the
        index of the source row below it, and its distance from the source row above it, in [0, 1].
    """
    rows = torch.arange(top, bottom, dtype=exact_dtype(device), device=device)
    if align_corners:
        place = rows * ((height - 1) / max(target - 1, 1))
    else:
        place = ((rows + 0.5) * (height / target) - 0.5).clamp(min=0)
    low = place.floor().long().clamp(max=height - 1)
    return low, (low + 1).clamp(max=height - 1), place - low


def in_bands(rows: Rows, height: int) -> Iterator[Tensor]:
    """Yields all `height` rows from top to bottom, in bands of at most `BAND` rows."""
    for top in range(0, height, BAND):
        yield rows(top, min(top + BAND, height))


class Labels:
    """Label map of one image, computed from bands of logits.

    The result equals that of mmseg on the whole map: padding is removed, the logits are resized to the original size,
    and each pixel gets the class with the largest logit.

    Args:
        size: (H, W) of the logits, including padding.
        meta: meta information of the image, with `ori_shape`, `padding_size` (left, right, top, bottom) and `flip`.
        align_corners: as in `F.interpolate`.
        threshold: probability above which a head with a single class predicts it; None for several classes.
    """

    def __init__(
        self, size: tuple[int, int], meta: dict[str, Any], align_corners: bool = False, threshold: float | None = None
    ) -> None:
        padding = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
        self.left, right, self.top, bottom = padding
        self.inner = (size[0] - self.top - bottom, size[1] - self.left - right)
        self.target = tuple(meta.get('ori_shape', self.inner)[:2])
        self.flip = meta.get('flip_direction') if meta.get('flip') else None
        self.align_corners, self.threshold = align_corners, threshold
        self.seen = 0
        self.painted = 0
        self.kept: Tensor | None = None
        self.parts: list[Tensor] = []

    def add(self, band: Tensor) -> None:
        """Adds the next rows (K, h, W) of the logits."""
        start, self.seen = self.seen, self.seen + band.shape[1]
        first, last = (min(max(row - self.top, 0), self.inner[0]) for row in (start, self.seen))
        if last == first:
            return
        band = band[:, first + self.top - start : last + self.top - start, self.left : self.left + self.inner[1]]
        if self.inner == self.target:
            self.parts.append(self._decided(band))
            return
        rows = band if self.kept is None else torch.cat([self.kept, band], 1)
        self._paint(rows, last - rows.shape[1], last)
        self.kept = rows[:, -1:].clone()  # a row of the result may lie between this one and the next

    def _paint(self, rows: Tensor, first: int, last: int) -> None:
        """Computes the labels of the rows that need only source rows before `last`; `rows` starts at row `first`."""
        _, high, _ = source_rows(self.inner[0], self.target[0], self.painted, self.target[0], self.align_corners)
        ready = self.painted + int((high < last).sum())
        step = max(1, CHUNK_VALUES // (len(rows) * max(self.target[1], rows.shape[-1])))
        for top in range(self.painted, ready, step):
            bottom = min(top + step, ready)
            place = (first, self.inner[0])
            logits = resized_rows(rows[None], self.target, top, bottom, self.align_corners, place)[0]
            self.parts.append(self._decided(logits))
        self.painted = ready

    def _decided(self, logits: Tensor) -> Tensor:
        if self.threshold is None:
            return logits.argmax(0)
        return (logits[0].sigmoid() > self.threshold).to(logits)

    def finished(self) -> Tensor:
        """Returns the label map: (1, H, W) class ids at the original size, on the device of the logits."""
        labels = torch.cat(self.parts)
        if self.flip is not None:
            labels = labels.flip({'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}[self.flip])
        return labels[None]
