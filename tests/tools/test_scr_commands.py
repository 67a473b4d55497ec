"""Commands for the restorer: training, test, resuming, several processes, and use in RASS."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT, run, warm

from rass_mm.diffusion.adapter_files import read_adapter
from rass_mm.engine.checkpoints import load_local

SCR, RASS = 'scr/scr_scenes_tiny.py', 'rass/rass_scenes_tiny.py'


def options(scenes, base, iterations=3, **others):
    """Returns --cfg-options that set the fixtures' data and base, with a VSD loss and its critic."""
    given = {f'{loader}_dataloader.dataset.data_root': scenes for loader in ('train', 'val', 'test')}
    given |= {'train_dataloader.batch_size': 2, 'train_cfg.max_iters': iterations, 'train_cfg.val_interval': iterations}
    given |= {'default_hooks.logger.interval': 1, 'model.base': base}
    given |= {'model.losses.score.loss_weight': 1.0}
    return ['--cfg-options', *(f'{key}={value}' for key, value in {**given, **others}.items())]


def logged(work_dir):
    """Returns iteration -> (generator loss, critic loss) over all runs in a work dir; the latest run has priority."""
    found = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                found[record['step']] = (record['loss'], record['critic'])
    return found


@pytest.fixture(scope='module')
def trained(tmp_path_factory, scenes, tiny_base):
    """Work dir of three iterations of the tiny restorer with tools/train.py."""
    work = tmp_path_factory.mktemp('scr')
    done = warm('tools/train.py', SCR, '--work-dir', work, *options(scenes, tiny_base))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return work


def test_training_writes_checkpoint_adapter_and_scores(trained):
    state = load_local(trained / 'iter_3.pth')['state_dict']
    assert any('.scr.' in key for key in state) and any('.vsd.' in key for key in state)
    assert not any('autoencoder' in key or 'plain' in key for key in state)
    adapter = read_adapter(trained / 'scr_adapter.safetensors')
    header, tensors = adapter.header, adapter.tensors
    assert header['recipe']['form'] == 'residual' and header['recipe']['timestep'] == 1
    assert not any('vsd' in key for key in tensors)
    names = [(term['kind'], term['licence']) for term in header['terms']]
    assert names == [('base', 'not stated'), ('data', 'Apache-2.0')] and header['recipe_version'] == 2
    meta = load_local(trained / 'iter_3.pth')['meta']
    assert meta['terms'] == header['terms'] and meta['versions'] == header['versions']
    log = next(trained.glob('*/*.log')).read_text()
    assert all(name in log for name in ('loss_pixel', 'loss_constraint', 'loss_score', 'critic', 'PSNR', 'attention'))


@pytest.mark.parametrize('mode', ['restore', 'ceiling', 'input'])
def test_test_writes_scores_and_images(mode, trained, scenes, tiny_base, tmp_path):
    done = warm(
        *('tools/test.py', SCR, trained / 'iter_3.pth', '--work-dir', tmp_path / 'test', '--out', tmp_path / 'out'),
        *('--show-dir', tmp_path / 'show', *options(scenes, tiny_base, **{'model.test_cfg.mode': mode})),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / 'out').glob('*.png'))) == len(list((tmp_path / 'show').glob('*.png'))) == 4
    metrics = json.loads((tmp_path / 'test' / 'metrics.json').read_text())['metrics']
    assert 5 < metrics['PSNR'] < 60 and (metrics['PSNR'] == metrics['input_PSNR']) == (mode == 'input')
    assert ('attention_ratio' in metrics) == (mode == 'restore')


@pytest.mark.slow
def test_run_killed_between_checkpoints_resumes_with_the_same_losses(scenes, tiny_base, tmp_path):
    common = options(scenes, tiny_base, 6, **{'default_hooks.checkpoint.interval': 3, 'train_cfg.val_interval': 100})
    whole = warm('tools/train.py', SCR, '--work-dir', tmp_path / 'whole', *common)
    assert whole.returncode == 0, whole.stderr[-3000:]
    command = [sys.executable, 'tools/train.py', SCR, '--work-dir', str(tmp_path / 'cut'), *map(str, common)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if re.search(r'Iter\(train\) *\[ *5/6\]', line):
            process.send_signal(signal.SIGKILL)
            break
    process.wait(60)
    process.stdout.close()
    assert not (tmp_path / 'cut' / 'iter_6.pth').exists() and (tmp_path / 'cut' / 'iter_3.pth').exists()
    resumed = warm('tools/train.py', SCR, '--work-dir', tmp_path / 'cut', '--resume', *common)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    expected, found = logged(tmp_path / 'whole'), logged(tmp_path / 'cut')
    assert sorted(found) == list(range(1, 7))
    for step in range(1, 7):
        assert found[step] == pytest.approx(expected[step], abs=1e-5), (expected, found)


@pytest.mark.slow
def test_two_gloo_processes_see_the_loss_of_one(scenes, tiny_base, tmp_path):
    # Without the VSD loss, because its noise is drawn per process.
    exact = {'train_cfg.val_interval': 100, 'model.losses.score.loss_weight': 0.0}
    common = options(scenes, tiny_base, 2, **exact)
    one = warm(
        *('tools/train.py', SCR, '--work-dir', tmp_path / 'one', *common, 'train_dataloader.batch_size=4'),
    )
    assert one.returncode == 0, one.stderr[-3000:]
    two = run(
        *('bash', 'tools/dist_train.sh', SCR, 2, '--work-dir', tmp_path / 'two', *common),
        env={'PYTHON': sys.executable, 'PORT': str(20002 + int(time.time()) % 20000)},
    )
    assert two.returncode == 0, two.stdout[-2000:] + two.stderr[-3000:]
    expected, found = (pixel_losses(tmp_path / name) for name in ('one', 'two'))
    assert found[1] == pytest.approx(expected[1], abs=1e-5)
    assert found[2] == pytest.approx(expected[2], abs=1e-3)  # after one update, the summation order has an effect
    states = [load_local(tmp_path / name / 'iter_2.pth')['state_dict'] for name in ('one', 'two')]
    assert states[0].keys() == states[1].keys()


def pixel_losses(work_dir):
    """Returns iteration -> pixel loss of a run without a critic."""
    lines = next(Path(work_dir).glob('*/vis_data/scalars.json')).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {record['step']: record['loss_pixel'] for record in records if 'loss_pixel' in record}


def test_rass_takes_the_adapter_by_config(trained, scenes, tiny_base, tmp_path):
    adapter = trained / 'scr_adapter.safetensors'
    given = [o for o in options(scenes, tiny_base, 2) if 'model.' not in o]
    given += [f'model.backbone.base={tiny_base}', f'model.backbone.scr_adapter={adapter}']
    done = warm('tools/train.py', RASS, '--work-dir', tmp_path, *given)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    state = load_local(tmp_path / 'iter_2.pth')['state_dict']
    provenance = json.loads(bytes(state['_extra_state'].tolist()))
    assert provenance['merged_adapters'] == [{'name': 'scr', 'hash': read_adapter(adapter).header['hash']}]


def test_restore_command_writes_the_same_images_as_the_test(trained, scenes, tiny_base, tmp_path):
    tested = warm(
        *('tools/test.py', SCR, trained / 'iter_3.pth', '--work-dir', tmp_path / 'test', '--out', tmp_path / 'tested'),
        *options(scenes, tiny_base),
    )
    assert tested.returncode == 0, tested.stderr[-3000:]
    done = warm(
        *('-m', 'rass_mm', 'restore', scenes / 'img_lq' / 'val', tmp_path / 'restored', '--base', tiny_base),
        *('--adapter', trained / 'scr_adapter.safetensors', '--window', 128, '--sheet', tmp_path / 'sheet.png'),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    import cv2
    import numpy as np

    files = sorted((tmp_path / 'tested').glob('*.png'))
    assert len(files) == 4
    assert cv2.imread(str(tmp_path / 'sheet.png')).shape[1] == 4 * (2 * 192 + 3 * 4)
    for file in files:
        other = cv2.imread(str(tmp_path / 'restored' / file.name)).astype(int)
        assert np.abs(cv2.imread(str(file)).astype(int) - other).max() <= 1
