"""tools/compare_exports.py on a tiny segmentor and a tiny restorer."""

import json

import numpy as np
import pytest
from commands import warm
from export_settings import WINDOW
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def images(photos, tmp_path_factory):
    """Folder with `images`, and `labels` that are random."""
    folder = tmp_path_factory.mktemp('compared')
    for part in ('images', 'labels'):
        (folder / part).mkdir()
    random = np.random.default_rng(0)
    for name in ('wide.png', 'window.png'):
        image = Image.open(photos / name)
        image.save(folder / 'images' / name)
        labels = random.integers(0, 12, image.size[::-1], dtype=np.uint8)
        Image.fromarray(labels).save(folder / 'labels' / name)
    return folder


def compare(model, folder, out, *options):
    """Runs the tool in float32 and returns its rows."""
    pytest.importorskip('onnxscript')
    given = [model, out, '--images', folder / 'images', '--calibration', folder / 'images', '--window', WINDOW]
    done = warm('tools/compare_exports.py', *given, '--variants', 'onnx-float32', 'pt2-float32', *options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads((out / 'comparison.json').read_text())


def test_float32_exports_of_a_segmentor_give_its_labels(models, images, tmp_path):
    rows = compare(models('plain'), images, tmp_path / 'out', '--labels', images / 'labels')
    assert [(row[''], row['weights']) for row in rows] == [
        *(('PyTorch', 'float32'), ('PyTorch', 'bfloat16'), ('onnx', 'float32'), ('pt2', 'float32')),
    ]
    reference, _, onnx, pt2 = rows
    assert reference['other labels'] == onnx['other labels'] == pt2['other labels'] == '0'
    assert reference['mIoU, %'] == onnx['mIoU, %'] and float(reference['mIoU, %']) < 20  # the labels are random
    assert float(onnx['MiB']) > 0.1 and float(onnx['difference']) < 1e-4


def test_float32_exports_of_a_restorer_give_its_pixels(models, images, tiny_base, tmp_path):
    options = ['--clean', images / 'images', '--base', tiny_base]
    reference, half, onnx, _ = compare(models('restorer'), images, tmp_path / 'out', *options)
    assert int(reference['at most']) == 0 and int(onnx['at most']) <= 1
    assert float(half['other values, %']) > float(onnx['other values, %'])
    assert float(onnx['PSNR, dB']) == pytest.approx(float(reference['PSNR, dB']), abs=0.01)
