"""Overlapping windows over an image; restoration and segmentation share them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise

import torch
from torch import Tensor

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


def mean_weights(starts: Sequence[int], window: int) -> dict[int, Tensor]:
    """Weights along one side by window start: each pixel's mean over the windows that hold it."""
    count = torch.zeros(starts[-1] + window, dtype=torch.float64)
    for start in starts:
        count[start : start + window] += 1
    return {start: 1 / count[start : start + window] for start in starts}


def window_weights(
    grid: Sequence[Window], along: Callable[[Sequence[int], int], dict[int, Tensor]], like: Tensor
) -> Callable[[Window], Tensor]:
    """Gives the (h, w) weights of any window of a grid; over all windows they sum to 1 at every pixel.

    Args:
        grid: windows of one size, as `windows` gives them.
        along: `mean_weights` or `ramp_weights`.
        like: a tensor of the weights' dtype and device, on which they are multiplied out.
    """
    top, bottom, left, right = grid[0]
    sides = ({window[0] for window in grid}, bottom - top), ({window[2] for window in grid}, right - left)
    rows, columns = (
        {start: weights.to(like) for start, weights in along(sorted(starts), side).items()} for starts, side in sides
    )
    return lambda window: rows[window[0]][:, None] * columns[window[2]]


def batched(items: Sequence[Window], size: int) -> Iterator[list[Window]]:
    """`items` in lists of at most `size`."""
    if size < 1:
        raise ConfigError(f'{size} windows at a time are too few: at least 1 is needed.')
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def blended(
    image: Tensor, apply: Callable[[Tensor], Tensor], window: int, overlap: int, batch: int = 1, multiple: int = 1
) -> Tensor:
    """Applies a network window by window and blends the results, without seams.

    Windows start at multiples of `multiple`, so that a network that works on a coarser grid sees the same grid in each
    of them. A window counts nothing within a quarter of the overlap from its borders inside the image: a network whose
    output depends on fewer pixels around gives what it would give for the whole image. Besides image and result, only
    one batch of windows is held.

    Args:
        image: (C, H, W), any range and size; sides that are no multiples are mirrored at the bottom and at the right.
        apply: (B, C, h, w) to the same shape, on any device; h and w are `window`, or less for a smaller image.
        window: side of a window in pixels, a multiple of `multiple`.
        overlap: pixels shared by neighbours, at least, a multiple of `multiple`.
        batch: windows at a time.
        multiple: what the sides that `apply` gets are multiples of.

    Returns:
        (C, H, W) on the image's device, in its dtype and memory layout.

    Raises:
        ConfigError: the sizes do not fit together, or `apply` changes the shape.
    """
    if window % multiple or overlap % multiple or not 0 <= overlap < window:
        raise ConfigError(f'Window {window} and overlap {overlap} must be multiples of {multiple}, the overlap less.')
    padded = [-(-side // multiple) * multiple for side in image.shape[-2:]]
    grid = windows(tuple(padded), (window, window), (window - overlap, window - overlap))
    rows = ramp_weights(sorted({top for top, *_ in grid}), min(window, padded[0]))
    columns = ramp_weights(sorted({left for *_, left, _ in grid}), min(window, padded[1]))
    result = torch.zeros_like(image)
    for boxes in batched(grid, batch):
        inputs = torch.stack([_cut(image, box) for box in boxes])
        outputs = apply(inputs)
        if outputs.shape != inputs.shape:
            raise ConfigError(f'The network made {tuple(outputs.shape)} of {tuple(inputs.shape)}: it must keep shapes.')
        for (top, bottom, left, right), output in zip(boxes, outputs.to(result), strict=True):
            place = result[:, top:bottom, left:right]  # ends at the image's border, the window may reach beyond
            weight = rows[top][: place.shape[-2], None] * columns[left][: place.shape[-1]]
            place += output[:, : place.shape[-2], : place.shape[-1]] * weight.to(result)
    return result


def ramp_weights(starts: Sequence[int], window: int) -> dict[int, Tensor]:
    """Weights along one side by window start; at each pixel they sum to 1 over all windows.

    Each window but the first rises from 0 to 1 over the middle half of its overlap with the one before, which falls by
    as much. Where wide overlaps make a window fall before it has risen, the rest of the sum goes to its neighbours; it
    cannot be 0, because a window that has not risen leaves its predecessor, in the end the first, at 1.
    """
    positions = torch.arange(starts[-1] + window, dtype=torch.float64) + 0.5
    rising = [torch.ones_like(positions)]
    for before, start in pairwise(starts):
        overlap = max(before + window - start, 1e-6)  # 0 is a step between two pixels
        rising.append(((positions - start - overlap / 4) / (overlap / 2)).clamp(0, 1))
    falling = [1 - ramp for ramp in rising[1:]] + [torch.ones_like(positions)]
    weights = torch.stack(rising) * torch.stack(falling)
    weights /= weights.sum(0)
    return {start: row[start : start + window] for start, row in zip(starts, weights, strict=True)}


def _cut(image: Tensor, box: Window) -> Tensor:
    """One window of the image, mirrored where it reaches beyond the bottom or the right border."""
    top, bottom, left, right = box
    height, width = image.shape[-2:]
    return image[:, _mirrored(top, bottom, height, image.device)[:, None], _mirrored(left, right, width, image.device)]


def _mirrored(start: int, stop: int, size: int, device: torch.device) -> Tensor:
    """Indices from `start` to `stop`; those beyond `size` come back, or stay at the last pixel in a short side."""
    indices = torch.arange(start, stop, device=device)
    beyond = (indices - (size - 1)).clamp(min=0)
    # A side that cannot mirror all of what is missing repeats its last pixel: one pixel has nothing to mirror.
    return indices - 2 * beyond if stop - size <= size - 1 else indices - beyond
