"""Unchanged images: bicubic enlargements and published outputs of other systems, scored without a checkpoint."""

import json
import re

import cv2
import numpy as np
import pytest
from commands import SHARED, python, warm

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')

from rass_mm.metrics.quality import psnr, ssim  # noqa: E402 - after the check for mmagic

CONFIG = 'scr/pairs_as_they_are.py'
DREALSR = SHARED / 'data' / 'drealsr20'


def measured(work_dir, data, *options, launch=('tools/test.py',), out=None):
    """Returns metrics.json of a test on the pairs in `data`."""
    done = warm(
        *(*launch, CONFIG, '--work-dir', work_dir, *(['--out', out] if out else [])),
        *('--cfg-options', f'test_dataloader.dataset.data_root={data}', *options),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads((work_dir / 'metrics.json').read_text())


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    """Two clean 48x64 images, inputs of a quarter of the size, and noisy images of the full size."""
    folder = tmp_path_factory.mktemp('pairs')
    rng = np.random.default_rng(0)
    for name in ('one', 'two'):
        clean = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(clean + rng.normal(0, 5, clean.shape), 0, 255).astype(np.uint8)
        small = cv2.resize(clean, (16, 12), interpolation=cv2.INTER_AREA)
        for place, image in (('gt', clean), ('lq', small), ('theirs', noisy)):
            (folder / place).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / place / f'{name}.png'), image)
    return folder


def image(path):
    return cv2.imread(str(path))[..., ::-1]


def test_enlarged_inputs_are_scored(pairs, tmp_path):
    record = measured(
        *(tmp_path, pairs, "test_evaluator.scores=['PSNR','SSIM']"),
        launch=('-m', 'rass_mm', 'test'),
        out=tmp_path / 'out',
    )
    scores = []
    for name in ('one', 'two'):
        clean, small = (image(pairs / place / f'{name}.png') for place in ('gt', 'lq'))
        enlarged = cv2.resize(small, clean.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        assert np.array_equal(image(tmp_path / 'out' / f'{name}.png'), enlarged)
        scores.append((psnr(enlarged, clean), ssim(enlarged, clean)))
    assert [*record['metrics']] == ['PSNR', 'SSIM']
    assert np.allclose([*record['metrics'].values()], np.mean(scores, 0), atol=1e-9)
    assert record['checkpoint'] is None and record['images'] == 2 and record['kind'] == 'test'
    assert record['command'].startswith(f'python -m rass_mm test {CONFIG} --work-dir')


def test_published_outputs_are_scored_and_a_trained_model_is_refused(pairs, tiny_base, tmp_path):
    common = ['--work-dir', str(tmp_path), '--cfg-options', f'test_dataloader.dataset.data_root={pairs}']
    theirs = [CONFIG, *common, 'test_dataloader.dataset.data_prefix.img=theirs', "test_evaluator.scores=['PSNR']"]
    trained = ['scr/scr_camvid_tiny_pairs.py', *common, f'model.base={tiny_base}', 'model.classes=ScenesDataset']
    runs = f'for a in {[theirs, trained]}: print("status", run_command("test", a))'
    done = python('-c', f'from rass_mm_cli.main import run_command\n{runs}')
    assert re.findall(r'status (\d)', done.stdout) == ['0', '1'], done.stderr[-3000:]
    assert 'scr_camvid_tiny_pairs.py: the model has trainable parameters, but no checkpoint was given' in done.stderr
    metrics = json.loads((tmp_path / 'metrics.json').read_text())['metrics']
    expected = [psnr(*(image(pairs / place / name) for place in ('theirs', 'gt'))) for name in ('one.png', 'two.png')]
    assert abs(metrics['PSNR'] - np.mean(expected)) < 1e-9


@pytest.mark.skipif(not DREALSR.is_dir(), reason='the DRealSR pairs are not available (../shared/data/drealsr20)')
def test_published_scores_of_osediffs_outputs_are_reproduced(tmp_path):
    record = measured(tmp_path, DREALSR, 'test_dataloader.dataset.data_prefix.img=osediff')
    published = [*json.loads((DREALSR / 'published_metrics.json').read_text()).values()]
    for name, tolerance in (('PSNR', 1e-5), ('SSIM', 1e-5), ('NIQE', 1e-2)):
        expected = np.mean([scores[name.lower()] for scores in published])
        assert abs(record['metrics'][name] - expected) < tolerance, (name, record['metrics'][name], expected)
