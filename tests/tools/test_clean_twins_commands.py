"""Trainings on clean twins and on a range of severities with the real commands."""

import json
import re

import pytest
import torch
from commands import warm
from mmengine.config import Config

from rass_mm.degradation.versions import lq_steps
from rass_mm.engine.checkpoints import load_local

RASS, RESNET = 'rass/rass_scenes_tiny.py', 'baselines/resnet_scenes_tiny.py'
WEIGHT = 'model.train_cfg.clean_twins.kl_weight'


def options(scenes, base=None, updates=2, **more):
    """--cfg-options of a few updates on the fixtures, without validations."""
    given = {f'{loader}_dataloader.dataset.data_root': scenes for loader in ('train', 'val', 'test')}
    given |= {'train_dataloader.batch_size': 2, 'train_cfg.max_iters': updates, 'train_cfg.val_begin': updates + 1}
    given |= {'default_hooks.logger.interval': 1, **({'model.backbone.base': base} if base else {}), **more}
    return ['--cfg-options', *(f'{key}={value}' for key, value in given.items())]


def train(config, work, *arguments):
    done = warm('tools/train.py', config, '--work-dir', work, *arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return [json.loads(line) for line in next(work.glob('*/vis_data/scalars.json')).read_text().splitlines()]


def weights(work, name='iter_2.pth'):
    state = load_local(work / name)['state_dict']
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[key]) for key, value in one.items())


def test_rass_trains_on_twins_with_the_switch_alone(scenes, tiny_base, tmp_path):
    work = tmp_path / 'run'
    more = {WEIGHT: 0.5, 'train_dataloader.num_workers': 1, 'train_cfg.global_batch_size': 4}
    more['train_dataloader.dataset.pipeline.5.severity'] = '(0,0.5)'
    log = train(RASS, work, *options(scenes, tiny_base, **more))
    steps = [record for record in log if 'loss' in record]
    assert len(steps) == 2 and all(record['decode.loss_kl'] > 0 for record in steps)
    for record in steps:
        assert record['loss'] == pytest.approx(record['decode.loss_ce'] + record['decode.loss_kl'], rel=1e-4)
    dumped = Config.fromfile(str(next(work.glob('*.py'))))  # as it was used
    assert [step.severity for step in lq_steps(dumped.train_dataloader)] == [(0, 0.5)]
    names = [step.type for step in dumped.train_dataloader.dataset.pipeline]
    assert names[-3:] == ['KeepCleanImage', 'LQDegradation', 'PackSegInputs']
    tested = ['--work-dir', tmp_path / 'test', *options(scenes, tiny_base)]
    done = warm('tools/test.py', RASS, work / 'iter_2.pth', *tested)
    assert done.returncode == 0, done.stderr[-3000:]  # the checkpoint is that of a model without the switch


def test_a_plain_segmentor_trains_on_twins_and_resumes(scenes, tmp_path):
    more = {WEIGHT: 1.0, 'default_hooks.checkpoint.interval': 1}
    whole = train(RESNET, tmp_path / 'whole', *options(scenes, **more))
    assert all(record['decode.loss_kl'] > 0 for record in whole if 'loss' in record)
    cut = tmp_path / 'cut'
    cut.mkdir()
    (cut / 'iter_1.pth').write_bytes((tmp_path / 'whole' / 'iter_1.pth').read_bytes())
    (cut / 'last_checkpoint').write_text(str(cut / 'iter_1.pth'))
    train(RESNET, cut, '--resume', *options(scenes, **more))
    assert same(weights(cut), weights(tmp_path / 'whole'))


@pytest.mark.slow
def test_off_changes_no_bit(scenes, tiny_base, tmp_path):
    found = {}
    for name, more in (
        ('absent', {}),
        ('off', {'model.train_cfg.clean_twins': None, 'train_dataloader.dataset.pipeline.5.severity': 1.0}),
        ('on', {WEIGHT: 0.0}),
    ):
        train(RASS, tmp_path / name, *options(scenes, tiny_base, **more))
        found[name] = weights(tmp_path / name)
    assert same(found['absent'], found['off']) and not same(found['absent'], found['on'])


@pytest.mark.slow
def test_mask2former_trains_on_twins(scenes, tiny_base, tmp_path):
    log = train('rass/rass_scenes_tiny_mask2former.py', tmp_path, *options(scenes, tiny_base, **{WEIGHT: 1.0}))
    steps = [record for record in log if 'loss' in record]
    assert len(steps) == 2 and all(record['decode.loss_kl'] > 0 for record in steps)


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        ({WEIGHT: -1}, r'model\.train_cfg\.clean_twins\.kl_weight is -1, but it should be greater'),
        ({'train_dataloader.dataset.pipeline.5.severity': 2}, r'severity is 2, but it must be a number in the range'),
        ({WEIGHT: 1, 'train_dataloader.dataset.pipeline.5.type': 'PhotoMetricDistortion'}, 'Place KeepCleanImage dir'),
    ],
)
def test_errors_are_one_sentence(scenes, tmp_path, more, said):
    done = warm('tools/train.py', RESNET, '--work-dir', tmp_path, *options(scenes, **more))
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert re.search(said, done.stderr), done.stderr
