"""Restoration of one image with fake networks whose output is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import SHARED, python
from PIL import Image

import rass_mm.inference
from rass_mm.errors import AdapterError, ConfigError
from rass_mm.files.images import read_picture
from rass_mm.inference.restore import RestoreOptions, restore_image

# A minimal package root, so that the measured process imports torch but not mmseg.
MEASURED = """
import json
import numpy as np
import torch
from rass_mm.inference.restore import RestoreOptions, restore_image

torch.set_num_threads(1)

def peak():
    line = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
    return int(line.split()[1]) * 1024

def restored(image, method):
    return restore_image(image, torch.clone, RestoreOptions(batch=2, color_fix=method))

image = np.random.default_rng(0).random((2000, 3000, 3), dtype=np.float32)
restored(image[:512, :1024].copy(), 'wavelet')
before = peak()
for method in ('none', 'adain', 'wavelet'):
    error = float(np.abs(restored(image, method)[::50] - image[::50]).max())
    print(json.dumps({'method': method, 'growth': (peak() - before) / image.nbytes, 'error': error}))
restore_image(image[::4, ::4].copy(), torch.clone, RestoreOptions(batch=2, upscale=4), depth='uint8')
print(json.dumps({'method': 'upscale', 'growth': (peak() - before) / image.nbytes, 'error': 0}))
"""
PHOTOS = SHARED / 'data' / 'drealsr20' / 'lq'


def image(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def restored(picture, apply, **options):
    return restore_image(picture, apply, RestoreOptions(window=64, overlap=16, **options), 16)


@pytest.mark.parametrize('size', [(100, 131), (1, 200), (200, 1), (1, 1), (64, 64), (63, 65)])
@pytest.mark.parametrize('color_fix', ['none', 'adain', 'wavelet'])
def test_the_identity_gives_the_image_back(size, color_fix):
    result = restored(image(*size), torch.clone, color_fix=color_fix, batch=3)
    assert result.dtype == np.float32 and result.flags.c_contiguous
    np.testing.assert_allclose(result, image(*size), atol=1e-5)


def test_the_network_sees_minus_one_to_one_and_results_are_kept_in_range():
    seen = []

    def brighter(images):
        seen.append((images.min().item(), images.max().item()))
        return images + 1

    picture = image(64, 64)
    result = restored(picture, brighter)
    assert seen[0][0] == pytest.approx(-1, abs=0.01) and seen[0][1] == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(result, np.minimum(picture + 0.5, 1), atol=1e-6)


def test_the_input_is_left_alone():
    picture = image(50, 50)
    restored(picture, torch.neg, color_fix='adain')
    assert np.array_equal(picture, image(50, 50))


def pillows(levels, size):
    """Enlarges a uint8 image with Pillow's bicubic filter; returns grey levels."""
    return np.asarray(Image.fromarray(levels).resize(size[::-1], Image.BICUBIC), np.float64)


@pytest.mark.parametrize(('factor', 'size'), [(2, (62, 82)), (1.5, (46, 62)), (4, (124, 164))])
def test_an_8_bit_image_is_enlarged_as_the_published_restorers_do(factor, size):
    levels = np.rint(image(31, 41) * 255).astype(np.uint8)
    options = RestoreOptions(window=64, overlap=16, upscale=factor)
    result = restore_image(levels / np.float32(255), torch.clone, options, 16, 'uint8')
    np.testing.assert_allclose(result * 255, pillows(levels, size), atol=0.01)


@pytest.mark.parametrize('factor', [2, 1.5, 4])
def test_other_images_are_enlarged_in_full_precision(factor):
    ramp = np.linspace(0.3, 0.302, 40, dtype=np.float32)  # half a grey level in total
    result = restored(np.repeat(ramp[None, :, None], 3, 2).repeat(20, 0), torch.clone, upscale=factor)
    assert result.shape == (round(20 * factor), round(40 * factor), 3)
    inside = result[:, round(3 * factor) : -round(3 * factor)]
    assert np.abs(np.diff(inside, axis=1) - 0.002 / 39 / factor).max() < 2e-6


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f'the photos are not available ({PHOTOS})')
def test_enlarged_photos_are_the_published_restorers_input():
    for path in sorted(PHOTOS.iterdir()):
        picture = read_picture(path)
        size = tuple(4 * side for side in picture.pixels.shape[:2])
        expected = pillows(np.asarray(Image.open(path).convert('RGB')), size)
        result = restore_image(picture.pixels, torch.clone, RestoreOptions(upscale=4), 16, picture.depth)
        assert np.array_equal(np.rint(result * 255), expected), path


def test_osediffs_scheme_needs_a_restorer_with_its_multiples():
    options = RestoreOptions(upscale=4, scheme='osediff')
    with pytest.raises(ConfigError, match='multiples of 64.*latent_tiles=True'):
        restore_image(image(128, 130), torch.clone, options, 64)
    assert restore_image(image(128, 131), torch.clone, options, 8).shape == (512, 520, 3)


def test_a_colour_cast_of_the_network_is_fixed():
    picture = image(150, 100) * 0.5 + 0.25
    cast = torch.tensor([0.2, 0.0, -0.2])[:, None, None]
    for method, error in {'none': 0.1, 'adain': 1e-5, 'wavelet': 1e-5}.items():
        result = restored(picture, lambda images: images + cast, color_fix=method)
        assert np.abs(result - picture).max() == pytest.approx(error, abs=1e-4)


def test_window_and_overlap_are_rounded_up_to_what_the_network_needs():
    shapes = set()

    def noting(images):
        shapes.add(tuple(images.shape[2:]))
        return images

    options = RestoreOptions(window=100, overlap=10)
    assert options.tiling(64) == (128, 64) and options.tiling(1) == (100, 10)
    restore_image(image(300, 70), noting, options, 64)
    assert shapes == {(128, 128)}


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_nan_names_the_possible_causes(value):
    def broken(images):
        return images.index_fill(3, torch.tensor([5]), value)

    with pytest.raises(AdapterError, match='weights.*float16'):
        restored(image(64, 64), broken)


def test_too_little_memory_says_what_to_do():
    def greedy(images):
        raise torch.cuda.OutOfMemoryError('out of memory')

    with pytest.raises(ConfigError, match='smaller batch or window'):
        restored(image(64, 64), greedy)


@pytest.mark.parametrize(
    'wrong',
    [
        {'upscale': 0.5},
        {'upscale': float('nan')},
        {'window': 0},
        {'overlap': -1},
        {'overlap': 512},
        {'window': 64, 'overlap': 64},
        {'batch': 0},
        {'color_fix': 'magic'},
        {'scheme': 'magic'},
    ],
)
def test_options_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        RestoreOptions(**wrong)


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='the peak is read from /proc')
def test_a_large_image_costs_its_result_and_little_more(tmp_path):
    package = tmp_path / 'rass_mm'
    package.mkdir()
    (package / '__init__.py').touch()
    rooms = ('files', 'jobs', 'config', 'diffusion', 'inference')
    for name in ('errors.py', 'version.py', 'parallel.py', 'devices.py', *rooms):
        (package / name).symlink_to(Path(rass_mm.inference.__file__).parents[1] / name)
    # Freed memory is returned at once, so the peak excludes a fragmented heap.
    environment = {'PYTHONPATH': str(tmp_path), 'MALLOC_MMAP_THRESHOLD_': str(2**17)}
    done = python('-c', MEASURED, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for measured in map(json.loads, done.stdout.splitlines()):
        print(measured)
        assert measured['error'] < 1e-5
        # The result counts as 1, an enlarged source as another 1.
        assert measured['growth'] < (2.2 if measured['method'] == 'upscale' else 1.2), measured
