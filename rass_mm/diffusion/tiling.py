"""Overlapping windows over an image, shared by restoration and segmentation."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise

import torch
from torch import Tensor

from rass_mm.devices import exact_dtype
from rass_mm.errors import ConfigError

Window = tuple[int, int, int, int]
"""A window (top, bottom, left, right) in pixels, which selects `image[..., top:bottom, left:right]`."""


def windows(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]) -> list[Window]:
    """Returns the windows that cover an image, row by row. This is the grid of mmseg's sliding inference.

    The last window of each row or column is moved back so that it ends at the border. If a side of the image is shorter
    than the window, the windows have the length of this side instead.

    Args:
        size: height and width of the image in pixels.
        window: height and width of a window in pixels.
        stride: vertical and horizontal distance between windows in pixels.

    Raises:
        ConfigError: the stride is not positive or is larger than the window.
    """
    if not all(0 < step <= side for step, side in zip(stride, window, strict=True)):
        raise ConfigError(
            f'The window stride is {stride}, but it must be at least 1 and at most the window size {window}.'
        )
    rows, columns = (_starts(*sizes) for sizes in zip(size, window, stride, strict=True))
    height, width = (min(pair) for pair in zip(size, window, strict=True))
    return [(top, top + height, left, left + width) for top in rows for left in columns]


def _starts(size: int, window: int, stride: int) -> list[int]:
    count = max(size - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride, size - window), 0) for index in range(count)]


def mean_weights(starts: Sequence[int], window: int, device: torch.device | None = None) -> dict[int, Tensor]:
    """Computes weights of windows along one image side. At each pixel, the windows have equal weights with a sum of 1.

    Args:
        starts: first pixel of each window, in ascending order.
        window: length of a window in pixels.
        device: device of the weights; None is the CPU.

    Returns:
        Start of a window -> (window,) float64 weights.
    """
    count = torch.zeros(starts[-1] + window, dtype=exact_dtype(device), device=device)
    for start in starts:
        count[start : start + window] += 1
    return {start: 1 / count[start : start + window] for start in starts}


def window_weights(
    grid: Sequence[Window], along: Callable[..., dict[int, Tensor]], like: Tensor
) -> Callable[[Window], Tensor]:
    """Returns a function that computes the (h, w) weights of any window of a grid.

    At each pixel, the weights of all windows sum to 1.

    Args:
        grid: windows of the same size, as returned by `windows`.
        along: function that computes the weights along one side: `mean_weights` or `ramp_weights`.
        like: tensor whose dtype and device the weights have.
    """
    top, bottom, left, right = grid[0]
    sides = ({window[0] for window in grid}, bottom - top), ({window[2] for window in grid}, right - left)
    rows, columns = (
        {start: weights.to(like) for start, weights in along(sorted(starts), side, like.device).items()}
        for starts, side in sides
    )
    return lambda window: rows[window[0]][:, None] * columns[window[2]]


def batched(items: Sequence[Window], size: int) -> Iterator[list[Window]]:
    """Yields `items` in lists of at most `size` items.

    Raises:
        ConfigError: `size` is less than 1.
    """
    if size < 1:
        raise ConfigError(f'The number of windows per batch is {size}, but it must be at least 1.')
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def blended(
    image: Tensor, apply: Callable[[Tensor], Tensor], window: int, overlap: int, batch: int = 1, multiple: int = 1
) -> Tensor:
    """Applies a network window by window and blends the results without seams.

    Windows start at multiples of `multiple`, so that a network with a stride has the same grid in each window. The
    weight of a window is zero within a quarter of the overlap from each of its borders inside the image. If each output
    pixel depends only on input pixels within this distance, the result is the same as for the whole image. In addition
    to the image and the result, only one batch of windows is kept in memory.

    Args:
        image: (C, H, W) of any range and size. Sides that are not multiples of `multiple` are extended by mirroring at
            the bottom and at the right.
        apply: the network, which maps (B, C, h, w) to the same shape on any device. h and w are equal to `window`, or
            less if the image is smaller.
        window: side of a window in pixels, a multiple of `multiple`.
        overlap: minimum overlap of neighbouring windows in pixels, a multiple of `multiple`.
        batch: maximum number of windows per call of `apply`.
        multiple: divisor that h and w must have, e.g. the stride of the network.

    Returns:
        (C, H, W) on the device of the image, in its dtype and memory layout.

    Raises:
        ConfigError: `window`, `overlap`, `batch` and `multiple` are inconsistent, or `apply` changes the shape.
    """
    if window % multiple or overlap % multiple or not 0 <= overlap < window:
        raise ConfigError(
            f'The window is {window} and the overlap is {overlap}, but both must be multiples of {multiple}, and the '
            f'overlap must be smaller than the window.'
        )
    padded = [-(-side // multiple) * multiple for side in image.shape[-2:]]
    grid = windows(tuple(padded), (window, window), (window - overlap, window - overlap))
    rows = ramp_weights(sorted({top for top, *_ in grid}), min(window, padded[0]), image.device)
    columns = ramp_weights(sorted({left for *_, left, _ in grid}), min(window, padded[1]), image.device)
    result = torch.zeros_like(image)
    for boxes in batched(grid, batch):
        inputs = torch.stack([mirrored_window(image, box) for box in boxes])
        outputs = apply(inputs)
        if outputs.shape != inputs.shape:
            raise ConfigError(
                f'The network changed the shape {tuple(inputs.shape)} to {tuple(outputs.shape)}. '
                'Use a network that preserves the shape of its input.'
            )
        for (top, bottom, left, right), output in zip(boxes, outputs.to(result), strict=True):
            place = result[:, top:bottom, left:right]  # ends at the border of the image, unlike the window
            weight = rows[top][: place.shape[-2], None] * columns[left][: place.shape[-1]]
            place += output[:, : place.shape[-2], : place.shape[-1]] * weight.to(result)
    return result


def ramp_weights(starts: Sequence[int], window: int, device: torch.device | None = None) -> dict[int, Tensor]:
    """Computes ramp weights of windows along one image side. At each pixel, the weights of all windows sum to 1.

    Except for the first window, the weight of each window rises from 0 to 1 over the middle half of its overlap with
    the previous window, and the weight of the previous window falls by the same amount. If overlaps are so wide that
    the weight of a window falls before it has reached 1, the weights are divided by their sum. The sum cannot be 0:
    where the weight of a window has not risen, the weight of the previous window has not fallen.

    Args:
        starts: first pixel of each window, in ascending order.
        window: length of a window in pixels.
        device: device of the weights; None is the CPU.

    Returns:
        Start of a window -> (window,) float64 weights.
    """
    positions = torch.arange(starts[-1] + window, dtype=exact_dtype(device), device=device) + 0.5
    rising = [torch.ones_like(positions)]
    for before, start in pairwise(starts):
        overlap = max(before + window - start, 1e-6)  # an overlap of 0 is a step between two pixels
        rising.append(((positions - start - overlap / 4) / (overlap / 2)).clamp(0, 1))
    falling = [1 - ramp for ramp in rising[1:]] + [torch.ones_like(positions)]
    weights = torch.stack(rising) * torch.stack(falling)
    weights /= weights.sum(0)
    return {start: row[start : start + window] for start, row in zip(starts, weights, strict=True)}


def mirrored_window(image: Tensor, box: Window) -> Tensor:
    """Returns one window (C, h, w) of an image (C, H, W). Beyond the bottom and the right border, it is mirrored."""
    top, bottom, left, right = box
    height, width = image.shape[-2:]
    return image[:, _mirrored(top, bottom, height, image.device)[:, None], _mirrored(left, right, width, image.device)]


def _mirrored(start: int, stop: int, size: int, device: torch.device) -> Tensor:
    """Returns the indices from `start` to `stop - 1`. Indices beyond a side of length `size` are mirrored.

    If the side is too short for mirroring, they are clamped.
    """
    indices = torch.arange(start, stop, device=device)
    beyond = (indices - (size - 1)).clamp(min=0)
    # A side that is too short to be mirrored repeats its last pixel, because a single pixel cannot be mirrored.
    return indices - 2 * beyond if stop - size <= size - 1 else indices - beyond
