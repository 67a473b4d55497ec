"""Overlapping windows over an image; restoration and segmentation share them."""

from collections.abc import Iterator, Sequence
from itertools import islice

from rass_mm.errors import ConfigError

Window = tuple[int, int, int, int]
"""Top, bottom, left, right: `image[..., top:bottom, left:right]`."""


def windows(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]) -> list[Window]:
    """Windows that cover an image of `size` (height, width), row by row.

    The last of a row or column is moved back so that it ends at the border; an image smaller than the window gives one
    window of the image's own size. This is the grid of mmseg's sliding inference.
    """
    if not all(0 < step <= side for step, side in zip(stride, window, strict=True)):
        raise ConfigError(f'Window stride {stride} must be from 1 to the window size {window}, or pixels are left out.')
    rows, columns = (_starts(*sizes) for sizes in zip(size, window, stride, strict=True))
    height, width = (min(pair) for pair in zip(size, window, strict=True))
    return [(top, top + height, left, left + width) for top in rows for left in columns]


def _starts(size: int, window: int, stride: int) -> list[int]:
    count = max(size - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride, size - window), 0) for index in range(count)]


def batched(items: Sequence[Window], size: int) -> Iterator[list[Window]]:
    """`items` in lists of at most `size`."""
    if size < 1:
        raise ConfigError(f'{size} windows at a time are too few: at least 1 is needed.')
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
