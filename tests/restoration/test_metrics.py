"""Restoration metric, used through the registry and mmengine's evaluator as in a runner."""

import logging
import math
import sys
import types

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')

from mmengine.evaluator import Evaluator  # noqa: E402 - after the check for mmagic

from rass_mm.errors import ConfigError, DataError, InstallationError  # noqa: E402
from rass_mm.metrics.quality import niqe, psnr, ssim  # noqa: E402
from rass_mm.restoration.metrics import METRICS, RestorationMetrics  # noqa: E402 - the package prepares mmagic

# isort: split
from mmagic.structures import DataSample  # noqa: E402


def picture(seed, height=40, width=56):
    """Returns a (H, W, 3) BGR uint8 image with a different cast per channel, so that swapped channels are detected."""
    noise = np.random.default_rng(seed).normal(0, 12, (height, width, 3))
    return np.clip(noise + [40, 110, 190], 0, 255).round().astype(np.uint8)


def tensor(image):
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))


def sample(name='one', offset=0, clean=True, degraded=True, size=(40, 56), **fields):
    """Returns a data sample of a model; the restored image is `picture(1)` plus an offset that rounding removes."""
    data = DataSample(metainfo=dict(img_path=f'/photos/{name}.jpg') if name else {})
    data.output = DataSample(pred_img=tensor(picture(1 + offset, *size)) - 0.3)
    if clean:
        data.gt_img = tensor(picture(2 + offset, *size))
    if degraded:
        data.input = tensor(picture(3 + offset, *size))
    for key, value in fields.items():
        data.set_field(value, key)
    return data


def evaluate(samples, **options):
    """Returns the scores of a pass in batches of two."""
    evaluator = Evaluator(METRICS.build(dict(type='mmagic.RestorationMetrics', **options)))
    for start in range(0, len(samples), 2):
        evaluator.process(samples[start : start + 2])
    return evaluator.evaluate(len(samples))


def rgb(seed, *size):
    return picture(seed, *size)[..., ::-1]


def test_scores_are_means_over_rounded_images():
    scores = evaluate([sample('one'), sample('two', 10), sample('three', 20)])
    assert [*scores] == ['PSNR', 'SSIM', 'input_PSNR', 'input_SSIM']
    for prefix, first in (('', 1), ('input_', 3)):
        for name, function in (('PSNR', psnr), ('SSIM', ssim)):
            expected = np.mean([function(rgb(first + offset), rgb(2 + offset)) for offset in (0, 10, 20)])
            assert abs(scores[prefix + name] - expected) < 1e-9


def test_values_outside_the_range_and_half_precision_are_taken():
    data = sample()
    data.output.pred_img = (tensor(picture(2)) * 3 - 200).to(torch.bfloat16).requires_grad_()
    expected = data.output.pred_img.detach().float().clamp(0, 255).round().numpy()[::-1].transpose(1, 2, 0)
    assert abs(evaluate([data])['PSNR'] - psnr(expected, rgb(2))) < 1e-9


def test_input_scores_can_be_left_out_and_names_prefixed():
    assert [*evaluate([sample()], input_scores=False, scores='SSIM', prefix='val')] == ['val/SSIM']


def test_niqe_needs_no_clean_image():
    size = (96, 192)
    scores = evaluate([sample(clean=False, degraded=False, size=size)], scores=['NIQE'])
    assert [*scores] == ['NIQE'] and abs(scores['NIQE'] - niqe(rgb(1, *size))) < 1e-9


def test_images_without_a_clean_one_are_skipped():
    scores = evaluate([sample('one'), sample('two', 10, clean=False)])
    assert abs(scores['PSNR'] - psnr(rgb(1), rgb(2))) < 1e-9


def test_no_clean_image_at_all_is_an_error():
    with pytest.raises(ConfigError, match='(?s)PSNR, SSIM.*none of the 2 images.*gt_img'):
        evaluate([sample('one', clean=False), sample('two', clean=False)])


def warnings_of(call, monkeypatch):
    """Returns the result of `call` and the warnings it logs."""
    logged = []

    def record(message, logger=None, level=logging.INFO):
        logged.extend([message] if level == logging.WARNING else [])

    monkeypatch.setattr('rass_mm.restoration.metrics.print_log', record)
    return call(), logged


def test_identical_images_are_left_out_of_the_mean_with_a_warning(monkeypatch):
    same = sample('same')
    same.gt_img = tensor(picture(1))
    scores, logged = warnings_of(lambda: evaluate([sample('one', 10), same], scores=['PSNR']), monkeypatch)
    assert abs(scores['PSNR'] - psnr(rgb(11), rgb(12))) < 1e-9
    assert logged == ['PSNR is not finite on 1 of 2 images. Such values are omitted from its mean.']
    scores, _ = warnings_of(lambda: evaluate([same], scores=['PSNR']), monkeypatch)
    assert scores['PSNR'] == math.inf


def test_attention_is_averaged_without_nans():
    rows = [(2.0, 0.5), (math.nan, math.nan), (4.0, 0.1)]
    samples = [sample(str(i), attention=dict(ratio=a, chance=b)) for i, (a, b) in enumerate(rows)]
    scores = evaluate(samples)
    assert abs(scores['attention_ratio'] - 3) < 1e-9 and abs(scores['attention_chance'] - 0.3) < 1e-9


def test_restored_images_are_written_as_scored(tmp_path):
    evaluate([sample('one'), sample('two', 10)], output_dir=str(tmp_path / 'out'))
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == ['one.png', 'two.png']
    assert np.array_equal(cv2.imread(str(tmp_path / 'out' / 'two.png')), picture(11))


def test_images_without_a_path_get_different_names(tmp_path):
    evaluate([sample(None), sample(None, 10), sample(None, 20)], output_dir=str(tmp_path))
    assert len([*tmp_path.iterdir()]) == 3


def test_pictures_show_available_images_side_by_side(tmp_path):
    small = sample('small', clean=False)
    small.input = tensor(picture(5, 10, 14))
    evaluate([sample('all'), small], show_dir=str(tmp_path))
    page = cv2.imread(str(tmp_path / 'all.png'))
    cells = np.split(page, 3, axis=1)
    for cell, seed in zip(cells, (3, 1, 2), strict=True):
        assert np.array_equal(cell[18:58, 4:60], picture(seed))
        assert (cell[:18] < 128).any()  # the caption
    assert cv2.imread(str(tmp_path / 'small.png')).shape[1] == page.shape[1] * 2 // 3


def test_two_images_of_one_name_are_refused_before_one_is_lost(tmp_path):
    other = sample('one', 10)
    other.set_metainfo(dict(img_path='/elsewhere/one.png'))
    with pytest.raises(DataError, match='/elsewhere/one.png: /photos/one.jpg has the same name'):
        evaluate([sample('one'), other], output_dir=str(tmp_path))
    evaluate([sample('one'), sample('one')], output_dir=str(tmp_path))  # a padded sampler repeats images


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('gt_img', tensor(picture(2, 40, 55)), '40x56.*40x55'),
        ('input', tensor(picture(2, 10, 14)), 'degraded input.*input_scores=False'),
        ('gt_img', torch.zeros(1, 40, 56), r'clean image must have shape \(3, H, W\)'),
        ('output', DataSample(pred_img=torch.full((3, 40, 56), math.nan)), 'NaN'),
    ],
)
def test_unusable_images_are_errors_that_name_the_file(field, value, message):
    data = sample('bad')
    data.set_field(value, field)
    with pytest.raises(DataError, match=f'(?s)/photos/bad.jpg: .*{message}'):
        evaluate([data])


def test_unknown_metrics_are_refused():
    with pytest.raises(ConfigError, match='Unknown metrics: psnr. Choose from PSNR'):
        RestorationMetrics(scores=['psnr'])


def test_an_absent_pyiqa_is_an_error_before_the_first_image(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyiqa', None)
    with pytest.raises(InstallationError, match='LPIPS'):
        RestorationMetrics(scores=['PSNR', 'LPIPS'])


@pytest.fixture
def stand_in(monkeypatch):
    """Fake module pyiqa with networks that return simple numbers; yields the names of the created networks."""
    made = []

    def create_metric(name, device=None):
        made.append(name)
        functions = {'lpips': lambda a, b: (a - b).abs().mean(), 'musiq': lambda a: a.mean(), 'fid': count_images}
        return functions[name]

    def count_images(folder, truth, **_):
        from pathlib import Path

        names = [sorted(file.name for file in Path(place).iterdir() if file.read_bytes()) for place in (folder, truth)]
        assert names[0] == names[1]
        return float(len(names[0]))

    monkeypatch.setitem(sys.modules, 'pyiqa', types.SimpleNamespace(create_metric=create_metric))
    return made


def test_perceptual_metrics_are_made_once_and_averaged(stand_in):
    scores = evaluate([sample('one'), sample('two', 10)], scores=['LPIPS', 'MUSIQ'])
    assert [*scores] == ['LPIPS', 'MUSIQ', 'input_LPIPS'] and sorted(stand_in) == ['lpips', 'musiq']
    expected = np.mean([np.abs(rgb(1 + o).astype(float) - rgb(2 + o)).mean() / 255 for o in (0, 10)])
    assert abs(scores['LPIPS'] - expected) < 1e-6


def test_fid_sees_this_runs_pairs_only(stand_in, tmp_path):
    cv2.imwrite(str(tmp_path / 'stale.png'), picture(0))
    samples = [sample('one'), sample('two', 10), sample('three', 20, clean=False)]
    assert evaluate(samples, scores=['FID'], output_dir=str(tmp_path))['FID'] == 2
    assert np.array_equal(cv2.imread(str(tmp_path / 'clean' / 'two.png')), picture(12))
    with pytest.raises(ConfigError, match='output_dir'):
        RestorationMetrics(scores=['FID'])
