"""Checks of a config's values, and messages that name its keys."""

import math

import numpy as np
import pytest

import rass_mm
from rass_mm.config import config_names, load_config
from rass_mm.config.arguments import Count, NotNegative, argument_fault, value_fault
from rass_mm.config.names import suggestion
from rass_mm.config.settings import check_settings
from rass_mm.engine.loop import ResumableIterLoop
from rass_mm.errors import ConfigError
from rass_mm.restoration.hooks import SaveAdapterHook
from rass_mm.segmentation.fitting import FittingCheckpointHook

TINY = 'rass/rass_scenes_tiny.py'


@pytest.mark.parametrize('name', config_names())
def test_shipped_configs_pass(name):
    config = load_config(name)
    for purpose in ('model', 'data', 'test', *(['train'] if config.get('train_dataloader') else [])):
        check_settings(config, purpose)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'model.neck.type': 'FeatureProjections'}, 'model.neck.type(.|\n)*Did you mean FeatureProjection'),
        ({'val_evaluator.type': 'UPerHead'}, 'val_evaluator.type is .UPerHead., which is not a metric'),
        ({'model.decode_head.channels': 0}, 'model.decode_head.channels is 0(.|\n)*greater than'),
        ({'optim_wrapper.optimizer.lr': float('nan')}, 'optim_wrapper.optimizer.lr is nan'),
        ({'model.test_cfg.crop': 5}, 'model.test_cfg.crop is not a setting of RASS. Did you mean crop_size'),
        ({'default_scope': 'mmsegs'}, 'Did you mean mmseg'),
        ({'model': None}, 'rass_scenes_tiny.py: model is None'),
    ],
)
def test_wrong_values_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        check_settings(load_config(TINY, options), 'train')


@pytest.mark.parametrize(
    'options',
    [
        {'train_cfg.max_iters': 2e4, 'train_cfg.val_interval': 2e3, 'default_hooks.checkpoint.interval': 1e3},
        {'train_cfg.val_interval': math.inf, 'default_hooks.checkpoint.interval': math.inf},
        {'param_scheduler.1.begin': 1e2, 'param_scheduler.1.end': math.inf},
        {'optim_wrapper.clip_grad': {'max_norm': math.inf}, 'optim_wrapper.accumulative_counts': 2.0},
        {'optim_wrapper.optimizer.lr': np.float32(1e-4), 'train_dataloader.batch_size': np.int64(2)},
        {'train_cfg.max_iters': np.int64(20), 'model.decode_head.align_corners': np.bool_(True)},
        {'model.data_preprocessor.mean': np.array([1.5, 2, 3]), 'model.data_preprocessor.std': np.array([1, 2, 3])},
        {'model.data_preprocessor.size': np.array([64, 64]), 'model.test_cfg.stride': (np.int32(32), np.int32(32))},
        {'model.decode_head.loss_decode.loss_weight': -0.5, 'model.decode_head.loss_decode.avg_non_ignore': 1},
        {'param_scheduler.0.by_epoch': 0, 'train_dataloader.persistent_workers': 0, 'resume': 0},
        {'train_dataloader.dataset.pipeline.2.cat_max_ratio': 1.5},
    ],
)
def test_values_that_mmengine_accepts_are_accepted(options):
    check_settings(load_config('baselines/resnet_scenes_tiny.py', options), 'train')


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'train_cfg.max_iters': 20.5}, 'max_iters is 20.5, but it should be a valid integer'),
        ({'train_cfg.max_iters': math.inf}, 'max_iters is inf'),
        ({'train_cfg.max_iters': True}, 'max_iters is True'),
        ({'train_cfg.val_interval': 0.0}, 'val_interval is 0.0'),
        ({'param_scheduler.1.end': -math.inf}, 'end is -inf'),
        ({'param_scheduler.1.end': math.nan}, 'end is nan'),
        ({'train_dataloader.batch_size': 2.0}, 'batch_size is 2.0'),
        ({'optim_wrapper.clip_grad': {'max_norm': math.nan}}, 'max_norm is nan'),
        ({'optim_wrapper.optimizer.lr': np.float32('nan')}, r'lr is (np.float32\()?nan'),
        ({'model.data_preprocessor.mean': np.array([1, math.nan, 3])}, 'mean'),
        ({'train_cfg.max_iters': np.array([3])}, 'max_iters'),
        ({'model.decode_head.loss_decode.loss_weight': math.inf}, 'loss_weight is inf'),
        ({'param_scheduler.0.by_epoch': 2}, 'by_epoch is 2'),
    ],
)
def test_values_that_have_no_meaning_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        check_settings(load_config('baselines/resnet_scenes_tiny.py', options), 'train')


def test_a_segmentor_of_mmseg_may_have_further_test_settings():
    plain = {'model.test_cfg.subdivision_steps': 2, 'model.test_cfg.own': None, 'model.test_cfg.crop': 5}
    check_settings(load_config('baselines/resnet_scenes_tiny.py', plain), 'test')
    misspelled = load_config('baselines/resnet_scenes_tiny.py', {'model.test_cfg.strid': (32, 32)})
    with pytest.raises(ConfigError, match='model.test_cfg.strid is not a setting of EncoderDecoder.*stride'):
        check_settings(misspelled, 'test')


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'param_scheduler.7.end': 1}, 'param_scheduler is a list of 2 values'),
        ({'train_cfg.max_iters.x': 1}, 'train_cfg.max_iters is 170'),
        ({'modle.neck': None}, 'Did you mean model'),
        ({'model..neck': None}, 'empty part'),
    ],
)
def test_options_that_cannot_be_set_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        load_config(TINY, options)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('x = (\n', r'c\.py:1 is not valid Python'),
        ('x = 1\ny = x / 0\n', r'c\.py:2 raises ZeroDivisionError'),
        ('_base_ = "c.py"\n', 'inherits from itself'),
        ('_base_ = "absent.py"\n', r'c\.py: _base_ names(.|\n)*absent\.py'),
    ],
)
def test_an_unreadable_file_is_named_with_its_line(tmp_path, text, said):
    (tmp_path / 'c.py').write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_config(tmp_path / 'c.py')


def test_arguments_of_inherited_and_absent_constructors():
    assert argument_fault(ResumableIterLoop, {'max_iters': 20.0}) is None
    assert argument_fault(ResumableIterLoop, {'max_iters': 20.5})[0] == 'max_iters'
    assert argument_fault(SaveAdapterHook, {'interval': 20.0})[0] == 'interval'
    assert argument_fault(FittingCheckpointHook, {'interval': 20}) is None


def test_values_and_types():
    assert value_fault([1, 2], tuple[Count, Count]) is value_fault((1, 2), list[Count]) is None
    assert value_fault((1.5, 2), tuple[Count, Count]) == ('.0', 'is 1.5, but it should be a valid integer.')
    assert value_fault(float('inf'), NotNegative)[1] == 'is inf, but it should be a finite number.'
    assert suggestion('colour', ['color', 'size']) == 'Did you mean color?' and 'Known: a' in suggestion('xyz', ['a'])
    assert rass_mm.config_path(TINY).is_file()
