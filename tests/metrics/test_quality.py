"""PSNR, SSIM and NIQE, compared with published values, plain formulas and mmagic's NIQE."""

import importlib
import importlib.util
import json
import math
import sys

import cv2
import numpy as np
import pytest
from commands import SHARED
from scipy.ndimage import gaussian_filter

from rass_mm.errors import DataError, InstallationError
from rass_mm.metrics import niqe as niqe_file
from rass_mm.metrics.quality import niqe, psnr, ssim

PAIRS = SHARED / 'data' / 'drealsr20'


@pytest.fixture(scope='module')
def published():
    """Provides (restored, clean, published scores) of each image."""
    if not PAIRS.is_dir():
        pytest.skip(f'the published pairs are not available ({PAIRS})')

    def read(folder, name):
        return cv2.imread(str(PAIRS / folder / name))[..., ::-1]

    scores = json.loads((PAIRS / 'published_metrics.json').read_text())
    return [(read('osediff', name), read('gt', name), row) for name, row in scores.items()]


def textured(height, width, seed=0):
    """Returns a grey image with texture at several scales."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    plane = sum(gaussian_filter(noise, sigma) * sigma for sigma in (0.6, 1.5, 4, 12))
    plane = np.clip(128 + 60 * plane / plane.std(), 0, 255).astype(np.uint8)
    return np.repeat(plane[..., None], 3, axis=2)


def test_psnr_and_ssim_equal_the_published_values(published):
    assert len(published) == 20
    assert max(abs(psnr(image, clean) - row['psnr']) for image, clean, row in published) < 1e-5
    assert max(abs(ssim(image, clean) - row['ssim']) for image, clean, row in published) < 1e-5


def test_niqe_equals_the_published_values(published):
    differences = [abs(niqe(image) - row['niqe']) for image, _, row in published]
    assert np.median(differences) < 0.01 and max(differences) < 0.02


def test_psnr_of_one_grey_level_equals_the_formula():
    grey = np.full((4, 5, 3), 100, np.uint8)
    expected = -10 * math.log10((219 / 255 / 255) ** 2 + 1e-8)
    assert abs(psnr(grey + np.uint8(1), grey) - expected) < 1e-9


def test_psnr_weights_the_channels_in_rgb_order():
    black = np.zeros((4, 4, 3), np.uint8)
    for channel, weight in enumerate((65.481, 128.553, 24.966)):
        image = black.copy()
        image[..., channel] = 255
        assert abs(psnr(image, black) - -20 * math.log10(weight / 255)) < 1e-4


def naive_ssim(x, y):
    """Computes the protocol's formula one window and one pixel at a time."""
    gauss = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    weights = [[a * b / sum(gauss) ** 2 for b in gauss] for a in gauss]
    values = []
    for top in range(len(x) - 10):
        for left in range(len(x[0]) - 10):
            sums = [0.0] * 5
            for i in range(11):
                for j in range(11):
                    a, b, w = float(x[top + i][left + j]), float(y[top + i][left + j]), weights[i][j]
                    sums = [s + w * v for s, v in zip(sums, (a, b, a * a, b * b, a * b), strict=True)]
            mx, my, xx, yy, xy = sums
            structure = (2 * (xy - mx * my) + 58.5225) / (xx - mx * mx + yy - my * my + 58.5225)
            values.append((2 * mx * my + 6.5025) / (mx * mx + my * my + 6.5025) * max(structure, 0))
    return sum(values) / len(values), min(values)


def test_ssim_equals_the_formula_in_plain_loops():
    rng = np.random.default_rng(3)
    image, truth = rng.integers(0, 256, (2, 14, 17, 3), dtype=np.uint8)
    lumas = [np.rint(16 + (p @ [65.481, 128.553, 24.966]) / 255) for p in (image, truth)]
    expected, lowest = naive_ssim(*lumas)
    assert lowest == 0  # the clamp was applied
    assert abs(ssim(image, truth) - expected) < 1e-10


def test_identical_images_score_inf_and_one():
    image = textured(32, 32)
    assert psnr(image, image) == math.inf
    assert abs(ssim(image, image) - 1) < 1e-12


def test_floating_point_images_score_like_uint8():
    image, truth = textured(192, 192, 1), textured(192, 192, 2)
    floats = image.astype(np.float32), truth.astype(np.float64)
    assert psnr(*floats) == psnr(image, truth)
    assert ssim(*floats) == ssim(image, truth)
    assert niqe(floats[0]) == niqe(image)


@pytest.mark.parametrize('function', [psnr, ssim])
@pytest.mark.parametrize('shape', [(32, 31, 3), (32, 32, 4), (32, 32)])
def test_other_shapes_are_refused(function, shape):
    with pytest.raises(DataError, match='32'):
        function(np.zeros((32, 32, 3)), np.zeros(shape))
    with pytest.raises(DataError):
        function(np.zeros(shape), np.zeros((32, 32, 3)))


def test_too_small_images_are_refused():
    with pytest.raises(DataError, match='11x11 pixels, but got 10x40'):
        ssim(np.zeros((10, 40, 3)), np.zeros((10, 40, 3)))
    assert ssim(np.zeros((11, 11, 3)), np.zeros((11, 11, 3))) == 1
    with pytest.raises(DataError, match='96x96 pixels, but got 300x95'):
        niqe(np.zeros((300, 95, 3)))
    with pytest.raises(DataError, match='shape'):
        niqe(np.zeros((300, 300)))


def mmagics(image):
    """Computes mmagic's NIQE of a grey image."""
    pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is the reference here')
    importlib.import_module('rass_mm.restoration')  # prepares mmagic for the import below
    from mmagic.evaluation.metrics.niqe import niqe as reference

    return float(reference(image[..., 0], 0, input_order='HW'))


def test_niqe_equals_mmagic_if_the_last_blocks_are_cut_off():
    image = textured(200, 420)
    assert abs(niqe(image) - mmagics(image)) < 0.01
    assert niqe(image) == niqe(image[:192, :384])


def test_niqe_of_partly_flat_images_does_not_depend_on_rounding_errors():
    image = textured(288, 288) // 2
    image[96:192, 96:], image[:60, :60] = 90, 140
    # Adding a constant changes neither differences nor contrast, only the last bits of the sums.
    for offset in (1, 37, 100):
        assert abs(niqe(image + np.uint8(offset)) - niqe(image)) < 1e-4


def test_niqe_without_two_textured_blocks_is_nan():
    assert math.isnan(niqe(textured(191, 191)))
    assert math.isnan(niqe(np.full((300, 300, 3), 7, np.uint8)))
    flat = textured(96, 288)
    flat[:, 90:] = 200
    assert math.isnan(niqe(flat))
    assert math.isfinite(niqe(textured(96, 192)))


def test_niqe_rises_with_noise():
    image = textured(288, 288)
    noisy = image + np.random.default_rng(0).normal(0, 25, image.shape[:2])[..., None]
    assert niqe(np.clip(noisy, 0, 255)) > niqe(image)


def test_niqe_names_the_remedy_if_mmagic_is_absent(monkeypatch):
    niqe_file.pristine_statistics.cache_clear()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'mmagic' else find(name))
    with pytest.raises(InstallationError, match=r'pip install "rass_mm\[restoration\]"'):
        niqe(textured(192, 192))


def test_niqe_does_not_import_mmagic(monkeypatch):
    niqe_file.pristine_statistics.cache_clear()
    monkeypatch.delitem(sys.modules, 'mmagic', raising=False)
    assert math.isfinite(niqe(textured(192, 192)))
    assert 'mmagic' not in sys.modules
