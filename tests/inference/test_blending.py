"""Blended windows compared with the network on the whole image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rass_mm.diffusion.tiling import blended
from rass_mm.errors import ConfigError


def network(reach, seed=0):
    """Returns a zero-padded convolution with a receptive field of `reach` pixels in each direction."""
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(3, 3, 2 * reach + 1, 2 * reach + 1, generator=generator) / (2 * reach + 1)
    return lambda images: torch.tanh(F.conv2d(images, kernel, padding=reach))


def strided(images):
    """Network with stride 8, like an autoencoder, in which each cell depends only on itself."""
    return F.interpolate(F.avg_pool2d(images, 8), scale_factor=8) * 0.7 + 0.1


def image(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def whole(picture, apply, multiple):
    """Runs the network on the whole image, mirrored to multiples with NumPy."""
    height, width = picture.shape[-2:]
    array = picture.numpy()
    for axis, side in ((1, height), (2, width)):
        missing = -side % multiple
        sides = [(0, missing if number == axis else 0) for number in range(3)]
        array = np.pad(array, sides, 'reflect' if missing < side else 'edge')
    return apply(torch.from_numpy(array)[None])[0, :, :height, :width]


@pytest.mark.parametrize(
    'size', [(200, 333), (64, 64), (65, 64), (48, 500), (1, 90), (90, 1), (1, 1), (33, 31), (129, 257)]
)
@pytest.mark.parametrize(('window', 'overlap', 'multiple'), [(64, 16, 1), (64, 32, 16), (64, 48, 16), (96, 64, 32)])
def test_a_small_reach_gives_the_result_of_the_whole_image(size, window, overlap, multiple):
    picture, apply = image(*size), network(reach=overlap // 4)
    result = blended(picture, apply, window, overlap, 3, multiple)
    torch.testing.assert_close(result, whole(picture, apply, multiple), atol=1e-5, rtol=0)


@pytest.mark.parametrize('size', [(128, 128), (150, 211), (67, 300)])
def test_windows_keep_the_grid_of_a_strided_network(size):
    result = blended(image(*size), strided, 64, 16, 4, 16)
    torch.testing.assert_close(result, whole(image(*size), strided, 16), atol=1e-5, rtol=0)


def test_a_reach_beyond_the_quarter_differs():
    """Shows that the test above would detect a nonzero weight where it must be 0."""
    picture, apply = image(200, 200), network(reach=12)
    assert (blended(picture, apply, 64, 32) - whole(picture, apply, 1)).abs().max() > 1e-3


@pytest.mark.parametrize('overlap', [1, 2, 3, 17, 40, 63])
def test_weights_sum_to_one_for_any_overlap(overlap):
    for side in (*range(62, 68), 101):
        result = blended(image(side, side + 3), lambda images: images, 64, overlap, 5)
        torch.testing.assert_close(result, image(side, side + 3), atol=4e-6, rtol=0)  # sum of up to 64 windows


def test_without_overlap_windows_stand_side_by_side():
    numbers = iter(range(100))

    def numbered(images):
        return torch.stack([torch.full_like(window, next(numbers)) for window in images])

    result = blended(image(8, 12), numbered, 4, 0)
    assert torch.equal(result[0, ::4, ::4], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(result, F.interpolate(result[None, :, ::4, ::4], scale_factor=4)[0])


def test_an_offset_that_changes_from_window_to_window_leaves_no_seam():
    ramp = torch.linspace(-1, 1, 300).expand(3, 300, 300).contiguous()

    def offset(images):
        return images + images.mean((1, 2, 3), keepdim=True)

    result = blended(ramp, offset, 64, 32, 2)
    step = 2 / 299
    # Neighbouring means differ by 32 levels, spread over 16 pixels, the middle half of the overlap.
    assert result.diff(dim=-1).abs().max() < step * (1 + 36 / 16) * 1.05
    assert result.diff(dim=-2).abs().max() < 1e-5
    hard = blended(ramp, offset, 64, 0, 2)
    assert hard.diff(dim=-1).abs().max() > 30 * step


def test_the_batch_size_changes_nothing():
    picture, apply = image(150, 170), network(5)
    results = [blended(picture, apply, 64, 16, batch) for batch in (1, 2, 7, 100)]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], atol=1e-6, rtol=0)


def test_at_most_the_requested_number_of_windows_runs_at_a_time_and_sides_fit():
    shapes = []

    def noting(images):
        shapes.append(tuple(images.shape))
        return images

    blended(image(150, 40), noting, 64, 32, 4, 32)
    assert max(shape[0] for shape in shapes) == 4 and {shape[1:] for shape in shapes} == {(3, 64, 64)}
    shapes.clear()
    blended(image(5, 33), noting, 128, 32, 4, 32)
    assert shapes == [(1, 3, 32, 64)]


def test_half_precision_results_are_accepted_and_the_layout_stays():
    picture = image(70, 50).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    result = blended(picture, lambda images: images.bfloat16(), 32, 8, 2)
    assert result.dtype == torch.float32 and result.stride() == picture.stride()
    torch.testing.assert_close(result, picture, atol=1e-2, rtol=0)


@pytest.mark.parametrize('sizes', [(64, 64, 1, 1), (64, 80, 1, 1), (64, 8, 1, 16), (60, 16, 1, 16), (64, -1, 1, 1)])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ConfigError, match='overlap'):
        blended(image(100, 100), lambda images: images, *sizes)


def test_a_network_that_changes_the_shape_is_refused():
    with pytest.raises(ConfigError, match=r'changed the shape \(1, 3, 64, 64\) to \(1, 3, 64, 32\)'):
        blended(image(100, 100), lambda images: images[..., ::2], 64, 16)
