"""Latent tiles of OSEDiff (arXiv 2406.08177): the UNet processes a large latent in tiles with Gaussian weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rass_mm.devices import exact_dtype
from rass_mm.diffusion.tiling import windows

SCHEMES = ('windows', 'osediff')
"""Ways to restore images of any size: in windows of the image, or in latent tiles as in OSEDiff."""
TILE, OVERLAP = 96, 32
"""Side and overlap of the tiles in latent pixels (768 and 256 image pixels with the VAE of Stable Diffusion)."""
VARIANCE = 0.01
"""Variance of the Gaussian weights, relative to the squared side of a tile."""


def in_latent_tiles(latent: Tensor, predict: Callable[[Tensor], Tensor]) -> Tensor:
    """Computes the output of a network for a latent of any size, in overlapping tiles if the latent is large.

    A latent with an area of at most 96 x 96 pixels is processed in one call. A larger latent is divided into square
    tiles with a side of 96 pixels, or of its shorter side if this is less. Neighbouring tiles overlap by at least 32
    pixels, or by half a tile if a tile is narrower than 64 pixels.

    Args:
        latent: (B, C, h, w).
        predict: the network, which maps (B, C, h', w') to the same shape.

    Returns:
        (B, C, h, w). Each pixel is the weighted mean of the outputs of all tiles that contain it.
    """
    size = latent.shape[-2:]
    if size[0] * size[1] <= TILE**2:
        return predict(latent)
    tile = min(TILE, *size)
    step = tile - min(OVERLAP, tile // 2)  # OSEDiff's code never ends if a tile is narrower than the overlap
    grid = windows(tuple(size), (tile, tile), (step, step))
    # As released, the weights are centred in a row of pixels, but half a pixel below the centre in a column.
    rows = gaussian_weights(sorted({top for top, *_ in grid}), tile, tile / 2, latent.device)
    columns = gaussian_weights(sorted({left for *_, left, _ in grid}), tile, (tile - 1) / 2, latent.device)
    result = torch.zeros_like(latent, dtype=torch.float32)
    for top, bottom, left, right in grid:
        weight = torch.outer(rows[top], columns[left]).to(result)
        result[..., top:bottom, left:right] += predict(latent[..., top:bottom, left:right]) * weight
    return result.to(latent.dtype)


def gaussian_weights(
    starts: Sequence[int], tile: int, center: float, device: torch.device | None = None
) -> dict[int, Tensor]:
    """Computes the Gaussian weights of tiles along one side of a latent. At each pixel, the weights sum to 1.

    Args:
        starts: first pixel of each tile, in ascending order.
        tile: side of a tile in pixels.
        center: position of the maximum, relative to the start of the tile.
        device: device of the weights; None is the CPU.

    Returns:
        Start of a tile -> (tile,) float64 weights.
    """
    distances = (torch.arange(tile, dtype=exact_dtype(device), device=device) - center) / tile
    profile = torch.exp(-distances.square() / (2 * VARIANCE))
    total = torch.zeros(starts[-1] + tile, dtype=exact_dtype(device), device=device)
    for start in starts:
        total[start : start + tile] += profile
    return {start: profile / total[start : start + tile] for start in starts}
