"""Sliding windows: logits of whole images from those of their windows, a few rows at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rass_mm.diffusion.tiling import Window, batched, mean_weights, ramp_weights, window_weights, windows
from rass_mm.errors import ConfigError

BLENDS = {'mean': mean_weights, 'ramp': ramp_weights}
Decode = Callable[[Tensor, int], Tensor]
"""Maps the windows (B * n, 3, h, w) of B images, and n, to their logits (B * n, K, h, w)."""


def slide(inputs: Tensor, config: Mapping[str, Any], decode: Decode) -> Iterator[Tensor]:
    """Yields rows of the logits (B, K, h, W) as soon as no later window covers them.

    Only unfinished rows are kept in memory.

    Args:
        inputs: (B, 3, H, W) images.
        config: `crop_size` and `stride` of the windows as (height, width); `blend`, the weights of windows where they
            overlap ('mean' or 'ramp', default 'mean'); and `window_batch`, the number of windows per image in a batch
            (default 4).
        decode: computes the logits of windows.

    Raises:
        ConfigError: `blend` is unknown.
    """
    size = tuple(inputs.shape[2:])
    grid = windows(size, config['crop_size'], config['stride'])
    blend = BLENDS.get(config.get('blend', 'mean'))
    if blend is None:
        raise ConfigError(f'test_cfg.blend is {config["blend"]!r}; expected one of {", ".join(BLENDS)}.')
    if len(grid) == 1:
        yield decode(cut(inputs, grid), 1)  # nothing to blend
        return
    start, sums, weight_of = 0, None, None
    for chunk, done in chunked(grid, config.get('window_batch', 4), size[0]):
        parts = decode(cut(inputs, chunk), len(chunk)).unflatten(0, (len(inputs), len(chunk)))
        if sums is None:
            sums = parts.new_zeros((len(inputs), parts.shape[2], 0, size[1]))
            weight_of = window_weights(grid, blend, parts)
        missing = max(bottom for _, bottom, *_ in chunk) - start - sums.shape[2]
        sums = F.pad(sums, (0, 0, 0, max(missing, 0)))
        for index, window in enumerate(chunk):
            top, bottom, left, right = window
            sums[..., top - start : bottom - start, left:right] += parts[:, index] * weight_of(window)
        if done > start:
            yield sums[..., : done - start, :]
            start, sums = done, sums[..., done - start :, :].clone()


def cut(inputs: Tensor, chunk: Sequence[Window]) -> Tensor:
    """Cuts the windows out of (B, C, H, W) images. Returns one batch, ordered by image like `Prompt.repeated`."""
    crops = [inputs[..., top:bottom, left:right] for top, bottom, left, right in chunk]
    return torch.stack(crops, 1).flatten(0, 1)


def chunked(grid: Sequence[Window], size: int, height: int) -> Iterator[tuple[list[Window], int]]:
    """Yields the windows in batches, each with the number of image rows that are complete after the batch."""
    seen = 0
    for chunk in batched(grid, size):
        seen += len(chunk)
        yield chunk, grid[seen][0] if seen < len(grid) else height
