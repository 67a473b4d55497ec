"""Real runs of the commands at the smallest possible size."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import ROOT, SHARED, python, run, warm
from mmengine.config import Config

from rass_mm.degradation.versions import lq_steps
from rass_mm.engine.checkpoints import load_local

TINY = 'rass/rass_scenes_tiny.py'


def options(scenes, base=None, iterations=3, **others):
    """Returns --cfg-options that set the data and base of a tiny config to those of the fixtures."""
    given = {f'{loader}_dataloader.dataset.data_root': scenes for loader in ('train', 'val', 'test')}
    given |= {'train_dataloader.batch_size': 2, 'train_cfg.max_iters': iterations, 'train_cfg.val_interval': iterations}
    given |= {'default_hooks.logger.interval': 1, **({'model.backbone.base': base} if base else {}), **others}
    return ['--cfg-options', *(f'{key}={value}' for key, value in given.items())]


def losses(work_dir):
    """Returns iteration -> loss over all runs in a work dir; later runs override earlier ones."""
    found = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                found[record['step']] = record['loss']
    return found


@pytest.fixture(scope='module')
def trained(tmp_path_factory, scenes, tiny_base):
    """Work dir of three iterations of the tiny RASS model with tools/train.py."""
    work = tmp_path_factory.mktemp('run')
    done = warm('tools/train.py', TINY, '--work-dir', work, *options(scenes, tiny_base))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return work


def test_train_writes_a_small_checkpoint_and_validates(trained):
    checkpoint = trained / 'iter_3.pth'
    assert (trained / 'last_checkpoint').read_text().strip() == str(checkpoint)
    state = load_local(checkpoint)['state_dict']
    assert any('lora_A' in key for key in state) and not any('vae' in key for key in state)
    assert 'mIoU' in next(trained.glob('*/*.log')).read_text()
    dumped = Config.fromfile(str(next(trained.glob('*.py'))))
    assert [step.recipe for step in lq_steps(dumped.train_dataloader)] == [{'version': 2}]


def test_test_writes_label_maps_pictures_and_metrics(trained, scenes, tiny_base, tmp_path):
    done = warm(
        *('tools/test.py', TINY, trained / 'iter_3.pth', '--work-dir', tmp_path / 'test', '--out', tmp_path / 'out'),
        *('--show-dir', tmp_path / 'show', *options(scenes, tiny_base)),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / 'out').glob('*.png'))) == 4
    assert len(list((tmp_path / 'show').rglob('*.png'))) == 4
    record = json.loads((tmp_path / 'test' / 'metrics.json').read_text())
    assert 0 <= record['metrics']['mIoU'] <= 100 and record['seed'] == 0 and record['checkpoint'].endswith('iter_3.pth')
    assert record['recipe_version'] == {'tested': 2, 'train_pipeline': 2}


def test_test_time_augmentation_runs(trained, scenes, tiny_base, tmp_path):
    done = warm(
        'tools/test.py', TINY, trained / 'iter_3.pth', '--tta', '--work-dir', tmp_path, *options(scenes, tiny_base)
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_run_killed_between_checkpoints_resumes_with_the_same_losses(scenes, tiny_base, tmp_path):
    common = options(scenes, tiny_base, 8, **{'default_hooks.checkpoint.interval': 3, 'train_cfg.val_interval': 100})
    whole = warm('tools/train.py', TINY, '--work-dir', tmp_path / 'whole', *common)
    assert whole.returncode == 0, whole.stderr[-3000:]
    command = [sys.executable, 'tools/train.py', TINY, '--work-dir', str(tmp_path / 'cut'), *common]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if re.search(r'Iter\(train\) *\[ *5/8\]', line):
            process.send_signal(signal.SIGKILL)
            break
    process.wait(60)
    process.stdout.close()
    assert not (tmp_path / 'cut' / 'iter_8.pth').exists() and (tmp_path / 'cut' / 'iter_3.pth').exists()
    resumed = warm('tools/train.py', TINY, '--work-dir', tmp_path / 'cut', '--resume', *common)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert 'resumed epoch: 0, iter: 3' in resumed.stdout + resumed.stderr
    expected, found = losses(tmp_path / 'whole'), losses(tmp_path / 'cut')
    assert sorted(found) == list(range(1, 9))
    apart = {step: abs(found[step] - expected[step]) for step in range(1, 9)}
    assert max(apart.values()) <= 1e-6, apart


@pytest.mark.slow
def test_two_gloo_processes_see_the_loss_of_one(scenes, tiny_base, tmp_path):
    exact = {'model.decode_head.dropout_ratio': 0.0, 'train_cfg.val_interval': 100}
    one = warm(
        *('tools/train.py', TINY, '--work-dir', tmp_path / 'one'),
        *options(scenes, tiny_base, 2, **exact, **{'train_dataloader.batch_size': 4}),
    )
    assert one.returncode == 0, one.stderr[-3000:]
    port = 20000 + int(time.time()) % 20000
    two = run(
        *('bash', 'tools/dist_train.sh', TINY, 2, '--work-dir', tmp_path / 'two'),
        *options(scenes, tiny_base, 2, **exact, **{'train_dataloader.batch_size': 2}),
        env={'PYTHON': sys.executable, 'PORT': str(port)},
    )
    assert two.returncode == 0, two.stdout[-2000:] + two.stderr[-3000:]
    expected, found = losses(tmp_path / 'one'), losses(tmp_path / 'two')
    assert abs(found[1] - expected[1]) <= 1e-5
    assert abs(found[2] - expected[2]) <= 1e-4  # after one update, the summation order of gradients has an effect


@pytest.mark.slow
def test_dist_test_gives_the_metrics_of_one_process(trained, scenes, tiny_base, tmp_path):
    one = warm(
        'tools/test.py', TINY, trained / 'iter_3.pth', '--work-dir', tmp_path / 'one', *options(scenes, tiny_base)
    )
    assert one.returncode == 0, one.stderr[-3000:]
    two = run(
        *(
            'bash',
            'tools/dist_test.sh',
            TINY,
            trained / 'iter_3.pth',
            2,
            '--work-dir',
            tmp_path / 'two',
            *options(scenes, tiny_base),
        ),
        env={'PYTHON': sys.executable, 'PORT': str(20001 + int(time.time()) % 20000)},
    )
    assert two.returncode == 0, two.stderr[-3000:]
    results = [json.loads((tmp_path / name / 'metrics.json').read_text())['metrics'] for name in ('one', 'two')]
    assert results[0]['mIoU'] == pytest.approx(results[1]['mIoU'], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    'config',
    ['rass/rass_scenes_tiny_mask2former.py', 'baselines/resnet_scenes_tiny.py'],
    ids=['mask2former', 'baseline'],
)
def test_other_tiny_configs_train_and_validate(config, scenes, tiny_base, tmp_path):
    base = tiny_base if config.startswith('rass') else None
    done = warm('tools/train.py', config, '--work-dir', tmp_path, '--amp', *options(scenes, base, 2))
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Training uses float32 instead of mixed precision' in done.stdout + done.stderr or torch.cuda.is_available()
    assert losses(tmp_path)[2] > 0


@pytest.mark.skipif(not (SHARED / 'data' / 'camvid').is_dir(), reason='CamVid is not available (../shared/data/camvid)')
@pytest.mark.slow
def test_camvid_trains_on_real_images(tiny_base, tmp_path):
    images = tmp_path / 'data' / 'img_lq' / 'val'
    few = tmp_path / 'few'
    few.mkdir()
    for file in sorted((SHARED / 'data' / 'camvid' / 'img_dir' / 'val').glob('*.jpg'))[:3]:
        (few / file.name).symlink_to(file)
    made = warm('tools/make_lq_dataset.py', few, images, '--workers', 1)
    assert made.returncode == 0, made.stderr
    for name in ('img_dir', 'ann_dir'):
        (tmp_path / 'data' / name).symlink_to(SHARED / 'data' / 'camvid' / name)
    done = warm(
        'tools/train.py',
        'rass/rass_camvid_tiny.py',
        '--work-dir',
        tmp_path / 'run',
        *options(tmp_path / 'data', tiny_base, 2),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'mIoU' in next((tmp_path / 'run').glob('*/*.log')).read_text()


@pytest.mark.slow
def test_wheel_alone_trains_and_tests_a_plain_mmseg_config_elsewhere(wheel_site, scenes, tiny_base, tmp_path):
    """Runs without the checkout on the path: package and configs come from the wheel, the command from mmengine."""
    (tmp_path / 'mine.py').write_text(PLAIN_CONFIG.format(scenes=scenes, base=tiny_base))
    (tmp_path / 'go.py').write_text(PLAIN_SCRIPT)
    done = python('go.py', cwd=tmp_path, env={'PYTHONPATH': str(wheel_site)})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert f'from {wheel_site}' in done.stdout and 'tested' in done.stdout
    assert (wheel_site / 'rass_mm' / 'py.typed').is_file()
    listed = python('-m', 'rass_mm', 'configs', cwd=tmp_path, env={'PYTHONPATH': str(wheel_site)})
    assert str(wheel_site) in listed.stdout and 'rass/rass_ade20k_lq.py' in listed.stdout


PLAIN_CONFIG = """
custom_imports = dict(imports=['rass_mm'], allow_failed_imports=False)
default_scope = 'mmseg'
pre = dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, size=(64, 64), seg_pad_val=255)
model = dict(
    type='RASS', data_preprocessor=pre, classes='ScenesDataset',
    backbone=dict(type='DiffusionBackbone', base='{base}', features=['vae.down_blocks.1', 'unet.up_blocks.1']),
    decode_head=dict(type='FCNHead', in_channels=96, in_index=1, channels=16, num_convs=1, num_classes=12),
    test_cfg=dict(mode='whole'),
)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
pack = [dict(type='PackSegInputs')]
data = dict(type='ScenesDataset', data_root='{scenes}')
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(**data, data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
                 pipeline=load + [dict(type='RandomCrop', crop_size=(64, 64)), dict(type='LQDegradation')] + pack),
)
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**data, data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'), pipeline=load + pack),
)
test_evaluator = dict(type='IoUMetric')
test_cfg = dict(type='TestLoop')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4))
work_dir = 'work'
"""
PLAIN_SCRIPT = """
from mmengine.config import Config
from mmengine.runner import Runner
runner = Runner.from_cfg(Config.fromfile('mine.py'))
runner.train()
metrics = runner.test()
import rass_mm
print('from', rass_mm.__path__[0].rsplit('/rass_mm', 1)[0])
print('tested', metrics['mIoU'])
"""


def test_doctor_reports_versions_and_operators():
    done = python('-m', 'rass_mm', 'doctor')
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'torch +\d', done.stdout) and re.search(r'mmcv operators +compiled', done.stdout)


@pytest.mark.slow
def test_broken_installation_says_how_to_fix_it(tmp_path):
    """Uses an mmcv without operators, as after a build with isolation."""
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').write_text("__version__ = '2.1.0'\n")
    done = python('-c', 'import rass_mm', env={'PYTHONPATH': f'{tmp_path}:{ROOT}'})
    assert done.returncode != 0
    assert 'mmcv has no working operators' in done.stderr and '--no-build-isolation mmcv' in done.stderr


def test_segmentation_runs_without_mmagic(tmp_path):
    code = 'import sys; sys.modules["mmagic"] = None; from rass_mm.segmentation import RASS; print(RASS)'
    done = python('-c', code)
    assert done.returncode == 0 and 'RASS' in done.stdout


@pytest.mark.parametrize('broken', ['nothing there', 'empty folder'])
def test_missing_data_stops_before_training(broken, tiny_base, scenes, tmp_path):
    root = tmp_path / 'data'
    if broken == 'empty folder':
        (root / 'img_dir' / 'train').mkdir(parents=True)
    done = warm('tools/train.py', TINY, '--work-dir', tmp_path / 'run', *options(root, tiny_base))
    assert done.returncode == 1
    assert 'error: train_dataloader' in done.stderr and str(root / 'img_dir' / 'train') in done.stderr
    assert 'Traceback' not in done.stderr


def test_missing_base_names_the_expected_files(scenes, tmp_path):
    done = warm('tools/train.py', TINY, '--work-dir', tmp_path, *options(scenes, tmp_path / 'no-base'))
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert f'{tmp_path}/no-base/unet/config.json' in done.stderr and 'rass-mm make-base' in done.stderr


def test_truncated_image_stops_training_with_its_name(scenes, tiny_base, tmp_path):
    copy = tmp_path / 'data'
    shutil.copytree(scenes, copy)
    for file in (copy / 'img_dir' / 'train').glob('*.png'):
        file.write_bytes(file.read_bytes()[:-200])
    workers = {'train_dataloader.num_workers': 1}
    done = warm('tools/train.py', TINY, '--work-dir', tmp_path / 'run', *options(copy, tiny_base, **workers))
    assert done.returncode == 1
    assert re.search(r'error: .*img_dir/train/\d+\.png: the image cannot be read', done.stderr)


def test_shell_scripts_parse():
    for script in [*ROOT.glob('tools/*.sh'), ROOT / '.ci' / 'run']:
        assert run('bash', '-n', script).returncode == 0
