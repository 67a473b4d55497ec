"""Training pipelines that keep the clean crops, and those whose clean crops would not match."""

import re

import pytest
from mmengine.registry import init_default_scope
from tiny_segmentors import shipped

from rass_mm.config import load_config
from rass_mm.errors import ConfigError
from rass_mm.segmentation.entry_points import settle

RESNET, RESTORED = 'baselines/resnet_scenes_tiny.py', 'baselines/resnet_scenes_tiny_r2s.py'
TWINS = 'model.train_cfg.clean_twins.kl_weight'
LOAD, FLIP = [{'type': 'LoadImageStrict'}, {'type': 'LoadLabelStrict'}], {'type': 'mmseg.RandomFlip', 'prob': 0.5}
KEEP, DEGRADE, PACK = {'type': 'KeepCleanImage'}, {'type': 'LQDegradation'}, {'type': 'PackSegInputs'}
CLEAN = {'type': 'LoadCleanImage', 'lq': 'lq', 'clean': 'gt'}


def settled(*steps, **options):
    init_default_scope('mmseg')
    config = shipped(RESNET, **(options or {TWINS: 1.0}))
    config.train_dataloader.dataset.pipeline = [*LOAD, *steps]
    settle(config)
    return [step['type'] for step in config.train_dataloader.dataset.pipeline[2:]]


def nested(*steps):
    return {'type': 'RandomApply', 'transforms': list(steps), 'prob': 0.5}


@pytest.mark.parametrize(
    ('steps', 'said'),
    [
        ([DEGRADE, FLIP, PACK], 'RandomFlip comes after LQDegradation'),
        ([KEEP, DEGRADE, FLIP, PACK], 'Place RandomFlip before KeepCleanImage'),
        ([KEEP, FLIP, DEGRADE, PACK], 'RandomFlip comes after KeepCleanImage'),
        ([DEGRADE, DEGRADE, PACK], 'has 2 steps LQDegradation. Keep one'),
        ([KEEP, FLIP, KEEP, DEGRADE, PACK], 'has 2 steps KeepCleanImage. Keep one'),
        ([DEGRADE, KEEP, PACK], 'KeepCleanImage comes after LQDegradation, so the image is not clean'),
        ([KEEP, nested(DEGRADE, FLIP), PACK], 'RandomFlip comes after KeepCleanImage'),
        ([CLEAN, FLIP, PACK], 'RandomFlip comes after LoadCleanImage'),
    ],
)
def test_crops_that_would_not_match_are_refused(steps, said):
    pattern = f'train_dataloader.dataset.pipeline.*{re.escape(said)}'
    with pytest.raises(ConfigError, match=pattern):
        settled(*steps)
    assert settled(*steps, **{'model.train_cfg.clean_twins': None})  # without the switch, nothing is checked


def test_steps_that_move_nothing_may_follow():
    edges = {'type': 'GenerateEdge'}
    kept = ['RandomFlip', 'KeepCleanImage', 'LQDegradation', 'GenerateEdge', 'PackSegInputs']
    assert [name.rpartition('.')[2] for name in settled(FLIP, DEGRADE, edges, PACK)] == kept
    assert settled(KEEP, nested(DEGRADE), PACK) == ['KeepCleanImage', 'RandomApply', 'PackSegInputs']
    assert settled(CLEAN, PACK) == ['LoadCleanImage', 'PackSegInputs']


def test_the_steps_of_wrappers_are_checked():
    init_default_scope('mmseg')
    config = shipped(RESNET, **{TWINS: 1.0})
    config.train_dataloader.dataset.pipeline = [*LOAD, DEGRADE]
    inner = {'type': 'ConcatDataset', 'datasets': [config.train_dataloader.dataset]}
    config.train_dataloader.dataset = {'type': 'MultiImageMixDataset', 'dataset': inner, 'pipeline': [FLIP, PACK]}
    with pytest.raises(ConfigError, match='dataset.dataset.datasets.0.pipeline: RandomFlip comes after LQDegradation'):
        settle(config)


@pytest.mark.parametrize(
    ('name', 'said'),
    [(RESTORED, 'RestoreThenSegment does.*in model.segmentor.train_cfg'), (RESNET, 'MultimodalEnc.* does.*Remove')],
)
def test_models_that_would_ignore_the_switch_are_refused(name, said):
    init_default_scope('mmseg')
    config = load_config(name, {TWINS: 1.0})
    config.model.type = config.model.type if name == RESTORED else 'mmseg.MultimodalEncoderDecoder'
    with pytest.raises(ConfigError, match=f'model.train_cfg.clean_twins is set, but {said}'):
        settle(config)
