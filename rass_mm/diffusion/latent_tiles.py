"""Latent tiles of OSEDiff (arXiv 2406.08177): the UNet sees tiles of a large latent, weighted by Gaussians."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rass_mm.diffusion.tiling import windows

SCHEMES = ('windows', 'osediff')
"""How images of any size are restored: in windows of the image, or as OSEDiff does."""
TILE, OVERLAP = 96, 32
"""Latent pixels: 768 and 256 image pixels with Stable Diffusion's VAE."""
VARIANCE = 0.01
"""Of the weights, for a tile of side 1."""


def in_latent_tiles(latent: Tensor, predict: Callable[[Tensor], Tensor]) -> Tensor:
    """A network's output for a latent of any size.

    A latent of at most 96 x 96 pixels, in area, is one call. A larger one is cut into square tiles of 96 pixels, or of
    its short side if that is less, which share 32 pixels with their neighbours.

    Args:
        latent: (B, C, h, w).
        predict: (B, C, h', w') to the same shape.

    Returns:
        (B, C, h, w): at each pixel the weighted mean of the tiles' outputs.
    """
    size = latent.shape[-2:]
    if size[0] * size[1] <= TILE**2:
        return predict(latent)
    tile = min(TILE, *size)
    step = tile - min(OVERLAP, tile // 2)  # OSEDiff's code does not end where a tile is narrower than the overlap
    grid = windows(tuple(size), (tile, tile), (step, step))
    # As released: the weights are centred in a row of pixels, but half a pixel below the centre in a column.
    rows = gaussian_weights(sorted({top for top, *_ in grid}), tile, tile / 2)
    columns = gaussian_weights(sorted({left for *_, left, _ in grid}), tile, (tile - 1) / 2)
    result = torch.zeros_like(latent, dtype=torch.float32)
    for top, bottom, left, right in grid:
        weight = torch.outer(rows[top], columns[left]).to(result)
        result[..., top:bottom, left:right] += predict(latent[..., top:bottom, left:right]) * weight
    return result.to(latent.dtype)


def gaussian_weights(starts: Sequence[int], tile: int, center: float) -> dict[int, Tensor]:
    """Weights along one side by tile start: a Gaussian around `center`; at each pixel they sum to 1 over all tiles."""
    distances = (torch.arange(tile, dtype=torch.float64) - center) / tile
    profile = torch.exp(-distances.square() / (2 * VARIANCE))
    total = torch.zeros(starts[-1] + tile, dtype=torch.float64)
    for start in starts:
        total[start : start + tile] += profile
    return {start: profile / total[start : start + tile] for start in starts}
