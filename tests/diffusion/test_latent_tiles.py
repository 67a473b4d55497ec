"""Latent tiles, compared with a direct computation of the weighted mean of all tiles."""

import numpy as np
import pytest
import torch

from rass_mm.diffusion.latent_tiles import in_latent_tiles


def latent(height, width, batch=1):
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(height + width))


def predict(part):
    """Network whose output depends on the whole tile, so that another tiling changes the result."""
    rows, columns = (torch.linspace(-1, 1, side) for side in part.shape[-2:])
    return torch.tanh(part * part.std() + part.mean((2, 3), keepdim=True)) + rows[:, None] * columns + rows[:, None]


def starts(size, tile):
    """Returns the starts of the tiles: every `tile` - 32 pixels, with the last tile moved back to end at the border."""
    found = [0]
    while found[-1] + tile < size:
        found.append(found[-1] + tile - 32)
    return [*found[:-1], size - tile]


def reference(values):
    height, width = values.shape[-2:]
    tile = min(96, height, width)
    x, y = np.arange(tile) - (tile - 1) / 2, np.arange(tile) - tile / 2
    weights = torch.from_numpy(np.exp(-((y[:, None] / tile) ** 2 + (x / tile) ** 2) / 0.02))
    total, seen = torch.zeros(values.shape, dtype=torch.float64), torch.zeros(height, width, dtype=torch.float64)
    for top in starts(height, tile):
        for left in starts(width, tile):
            place = (..., slice(top, top + tile), slice(left, left + tile))
            total[place] += predict(values[place]).double() * weights
            seen[place] += weights
    return (total / seen).float()


@pytest.mark.parametrize('size', [(110, 96), (96, 160), (161, 100), (200, 231), (70, 300), (128, 182)])
def test_large_latents_are_weighted_means_of_tiles(size):
    values = latent(*size, batch=2)
    result = in_latent_tiles(values, predict)
    torch.testing.assert_close(result, reference(values), atol=1e-5, rtol=1e-5)
    assert (result - predict(values)).abs().max() > 0.1  # tiling changes the result


@pytest.mark.parametrize('size', [(96, 96), (64, 144), (9, 1024), (13, 22)])
def test_up_to_9216_pixels_are_one_call(size):
    calls = []
    in_latent_tiles(latent(*size), lambda part: calls.append(part) or part)
    assert [call.shape[-2:] for call in calls] == [size]


def test_a_latent_narrower_than_the_overlap_terminates():
    assert torch.allclose(in_latent_tiles(latent(20, 500), lambda part: part), latent(20, 500), atol=1e-6)


def test_half_precision_is_accumulated_in_single_precision():
    values = latent(120, 130).bfloat16()
    result = in_latent_tiles(values, lambda part: part)
    assert result.dtype == torch.bfloat16 and torch.equal(result, values)
