"""Latent tiles of OSEDiff (arXiv 2406.08177): the UNet processes a large latent in tiles with Gaussian weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rass_mm.diffusion.tiling import windows

SCHEMES = ('windows', 'osediff')
"""Ways to restore images of any size: in windows of the image, or in latent tiles as in OSEDiff."""
TILE, OVERLAP = 96, 32
"""In latent pixels. They correspond to 768 and 256 image pixels with Stable Diffusion's VAE."""
VARIANCE = 0.01
"""Variance of the Gaussian weights, for a tile of side 1."""


def in_latent_tiles(latent: Tensor, predict: Callable[[Tensor], Tensor]) -> Tensor:
    """Computes the output of a network for a latent of any size.

    A latent with an area of at most 96 x 96 pixels is processed in one call. A larger one is divided into square tiles
    with sides of 96 pixels, or of its short side if that is less. Neighbouring tiles share 32 pixels.

    Args:
        latent: (B, C, h, w).
        predict: the network, which maps (B, C, h', w') to the same shape.

    Returns:
        (B, C, h, w), at each pixel the weighted mean of the outputs of the tiles.
    """
    size = latent.shape[-2:]
    if size[0] * size[1] <= TILE**2:
        return predict(latent)
    tile = min(TILE, *size)
    step = tile - min(OVERLAP, tile // 2)  # OSEDiff's code never ends if a tile is narrower than the overlap
    grid = windows(tuple(size), (tile, tile), (step, step))
    # As released, the weights are centred in a row of pixels, but half a pixel below the centre in a column.
    rows = gaussian_weights(sorted({top for top, *_ in grid}), tile, tile / 2)
    columns = gaussian_weights(sorted({left for *_, left, _ in grid}), tile, (tile - 1) / 2)
    result = torch.zeros_like(latent, dtype=torch.float32)
    for top, bottom, left, right in grid:
        weight = torch.outer(rows[top], columns[left]).to(result)
        result[..., top:bottom, left:right] += predict(latent[..., top:bottom, left:right]) * weight
    return result.to(latent.dtype)


def gaussian_weights(starts: Sequence[int], tile: int, center: float) -> dict[int, Tensor]:
    """Computes Gaussian weights around `center` along one side, by tile start. They sum to 1 at each pixel."""
    distances = (torch.arange(tile, dtype=torch.float64) - center) / tile
    profile = torch.exp(-distances.square() / (2 * VARIANCE))
    total = torch.zeros(starts[-1] + tile, dtype=torch.float64)
    for start in starts:
        total[start : start + tile] += profile
    return {start: profile / total[start : start + tile] for start in starts}
