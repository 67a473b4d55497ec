"""Latent tiles against a direct computation: all tiles, weighted, added up and divided by the weights."""

import numpy as np
import pytest
import torch

from rass_mm.diffusion.latent_tiles import in_latent_tiles


def latent(height, width, batch=1):
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(height + width))


def predict(part):
    """A network that sees its whole tile: another tiling gives another result."""
    rows, columns = (torch.linspace(-1, 1, side) for side in part.shape[-2:])
    return torch.tanh(part * part.std() + part.mean((2, 3), keepdim=True)) + rows[:, None] * columns + rows[:, None]


def starts(size, tile):
    """Where tiles begin: every `tile` - 32 pixels until one reaches the border, which is moved back to end there."""
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
    assert (result - predict(values)).abs().max() > 0.1  # tiles make a difference


@pytest.mark.parametrize('size', [(96, 96), (64, 144), (9, 1024), (13, 22)])
def test_up_to_9216_pixels_are_one_call(size):
    calls = []
    in_latent_tiles(latent(*size), lambda part: calls.append(part) or part)
    assert [call.shape[-2:] for call in calls] == [size]


def test_a_latent_narrower_than_the_overlap_ends():
    assert torch.allclose(in_latent_tiles(latent(20, 500), lambda part: part), latent(20, 500), atol=1e-6)


def test_half_precision_is_added_up_in_single():
    values = latent(120, 130).bfloat16()
    result = in_latent_tiles(values, lambda part: part)
    assert result.dtype == torch.bfloat16 and torch.equal(result, values)
