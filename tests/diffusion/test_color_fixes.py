"""Colour fixes, compared with independent implementations of their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rass_mm.diffusion.color import fix_colors
from rass_mm.errors import ConfigError


def pair(height, width, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.random((height, width, 3), dtype=np.float32) * 0.5 + 0.2
    return (source * [0.7, 0.9, 0.5] + 0.1 * rng.random((height, width, 3))).astype(np.float32), source


def blurred(image):
    """Applies five dilated [1 2 1] blurs, each as one 3x3 convolution."""
    planes = torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[:, None].double()
    line = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    for level in range(5):
        padded = F.pad(planes, [2**level] * 4, mode='replicate')
        planes = F.conv2d(padded, torch.outer(line, line)[None, None], dilation=2**level)
    return planes[:, 0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize('size', [(700, 90), (257, 40), (256, 33), (31, 300), (1, 70), (70, 1), (1, 1)])
def test_wavelet_combines_low_frequencies_of_the_source_and_high_ones_of_the_restored(size):
    restored, source = pair(*size)
    expected = restored.astype(np.float64) - blurred(restored) + blurred(source)
    np.testing.assert_allclose(fix_colors(restored, source, 'wavelet'), expected, atol=1e-5)


def normalised(restored, source):
    """Computes the released formula in float64, with unbiased variances plus 1e-5 before the square root."""
    restored, source = restored.astype(np.float64), source.astype(np.float64)
    deviations = [np.sqrt(image.var((0, 1), ddof=1) + 1e-5) for image in (restored, source)]
    return (restored - restored.mean((0, 1))) / deviations[0] * deviations[1] + source.mean((0, 1))


@pytest.mark.parametrize('size', [(700, 30), (1, 50), (40, 40), (2, 1)])
@pytest.mark.parametrize('contrast', [1, 0.01])
def test_adain_equals_the_released_formula(size, contrast):
    restored, source = pair(*size)
    restored = restored * np.float32(contrast) + np.float32(0.2)  # weak contrast: 1e-5 is no longer small
    expected = normalised(restored, source)
    np.testing.assert_allclose(fix_colors(restored, source, 'adain'), expected, atol=2e-6)


def truncated(image):
    return np.floor(image.clip(0, 1) * 255) / 255


@pytest.mark.parametrize('method', ['adain', 'wavelet'])
def test_files_of_the_released_scripts_are_half_a_grey_level_darker(method):
    restored, source = pair(300, 200)
    source = np.rint(source * 255).astype(np.float32) / 255
    short = truncated(restored)
    theirs = normalised(short, source) if method == 'adain' else short - blurred(short) + blurred(source)
    ours = np.rint(fix_colors(restored, source, method) * 255)
    difference = ours - truncated(theirs) * 255
    assert np.abs(difference).max() <= 2 and difference.mean() == pytest.approx(0.5, abs=0.1)


def test_a_flat_image_only_gets_the_mean_of_the_source():
    restored, source = np.full((5, 5, 3), 0.2, np.float32), pair(5, 5)[1]
    fixed = fix_colors(restored, source, 'adain')
    np.testing.assert_allclose(fixed, np.broadcast_to(source.mean((0, 1)), (5, 5, 3)), atol=1e-6)


@pytest.mark.parametrize('method', ['adain', 'wavelet'])
def test_a_colour_cast_is_removed_and_detail_is_preserved(method):
    source = pair(300, 200)[1]
    fixed = fix_colors(source + np.float32([0.1, 0.0, -0.05]), source, method)
    np.testing.assert_allclose(fixed, source, atol=1e-5)


def test_none_changes_nothing():
    restored, source = pair(20, 20)
    before = restored.copy()
    assert fix_colors(restored, source, 'none') is restored and np.array_equal(restored, before)


def test_unknown_methods_and_other_sizes_are_refused():
    with pytest.raises(ConfigError, match='magic'):
        fix_colors(*pair(5, 5), 'magic')
    with pytest.raises(ConfigError, match='size'):
        fix_colors(pair(5, 5)[0], pair(5, 6)[1], 'adain')
