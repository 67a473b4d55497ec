"""Errors while the parts of a config are built, and while they run."""

import copy
from concurrent.futures import Future

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmseg.registry import MODELS

from rass_mm import apis
from rass_mm.config import load_config
from rass_mm.config.building import explained, named_parts
from rass_mm.errors import CheckpointError, ConfigError, ConnectionLostError


@pytest.fixture
def config(scenes, tmp_path):
    """config(**options) returns the config of a training of one iteration."""
    before = copy.copy(DefaultScope._instance_dict)

    def load(**options):
        roots = {f'{split}_dataloader.dataset.data_root': str(scenes) for split in ('train', 'val', 'test')}
        short = {'train_cfg.max_iters': 1, 'train_cfg.val_interval': 9, 'default_hooks.checkpoint.interval': 1}
        loader = {'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False}
        loaded = load_config('baselines/resnet_scenes_tiny.py', {**roots, **short, **loader, 'log_level': 'ERROR'})
        loaded.merge_from_dict(options)
        return apis.prepare_config(loaded, work_dir=str(tmp_path / 'work'))

    yield load
    DefaultScope._instance_dict = before


def raising(error):
    """Returns a function that raises an error without a frame of this file."""
    future = Future()
    future.set_exception(error)
    return future.result


@pytest.mark.parametrize(
    ('option', 'value', 'said'),
    [
        ('optim_wrapper.optimizer.betas', (2, 3), r'optim_wrapper\.optimizer \(AdamW\) cannot be built'),
        ('param_scheduler', [{'type': 'PolyLR', 'colour': 1}], r'param_scheduler\.0\.colour is not a setting'),
        ('train_cfg.colour', 1, r'train_cfg\.colour is not a setting'),
        ('train_dataloader.colour', 1, 'train_dataloader(.|\n)*colour'),
        (
            'train_dataloader.dataset.metainfos',
            {'classes': ('a', 'b')},
            r'train_dataloader\.dataset\.metainfos is not a setting of ScenesDataset\. Did you mean metainfo\?',
        ),
        (
            'optim_wrapper.clip_grad',
            {'max_norm': 1, 'colour': 1},
            r'clip_grad\.colour is not a setting of OptimWrapper',
        ),
        ('optim_wrapper.clip_grad', {'type': 'value', 'max_norm': 1}, r'clip_grad\.max_norm is not a setting'),
        ('default_hooks.checkpoint.colour', 1, r'default_hooks\.checkpoint\.colour is not a setting of CheckpointHook'),
        ('custom_hooks', [{'type': 'EMAHook', 'colour': 1}], 'colour'),
    ],
)
def test_parts_that_are_built_when_training_starts_are_named(config, option, value, said):
    with pytest.raises(ConfigError, match=said):
        apis.train(config(**{option: value}))


def test_errors_of_a_running_training_keep_their_type(config, monkeypatch):
    monkeypatch.setattr(ParamSchedulerHook, 'after_train_iter', int)
    with pytest.raises(TypeError, match='takes at most 2 arguments'):
        apis.train(config())


def test_a_lack_of_memory_is_not_a_fault_of_the_config_or_the_checkpoint(config, monkeypatch, tmp_path):
    full = torch.OutOfMemoryError('CUDA out of memory')
    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(torch.nn.Conv2d, 'reset_parameters', raising(full))
        apis.train(config())
    apis.train(config())
    file = str(tmp_path / 'work' / 'iter_1.pth')
    for error in (full, RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with monkeypatch.context() as patch, pytest.raises(type(error), match='memory'):
            patch.setattr(MessageHub, 'load_state_dict', raising(error))
            apis.train(config(**{'train_cfg.max_iters': 2}), resume=file)
    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(torch.serialization, '_load', lambda *_, **__: raising(full)())
        apis.train(config(**{'train_cfg.max_iters': 2}), resume=file)
    monkeypatch.setattr(MessageHub, 'load_state_dict', raising(ValueError('a wrong value')))
    with pytest.raises(CheckpointError, match='a wrong value'):
        apis.train(config(**{'train_cfg.max_iters': 2}), resume=file)


@pytest.mark.parametrize('place', [(torch.nn.Conv2d, 'reset_parameters'), (Runner, 'dump_config')])
def test_a_lost_process_is_not_a_fault_of_the_config(config, monkeypatch, place):
    lost = RuntimeError('[gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:1024')
    loaded = config()
    monkeypatch.setattr(*place, raising(lost))
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(ConnectionLostError, match='Another process.*10.0.0.2') as caught:
        apis.train(loaded)
    assert '--resume' not in str(caught.value)  # no checkpoint exists yet
    monkeypatch.delenv('RANK')
    with pytest.raises(ConfigError, match='Connection closed by peer'):
        apis.train(loaded)


def test_only_building_is_explained_inside_named_parts():
    with named_parts({'model': {'type': 'Nope'}}, 'model'):
        with pytest.raises(KeyError):
            {}['key']
        with pytest.raises(ConfigError, match='model.type is .Nope.'):
            MODELS.build({'type': 'Nope'})


def test_a_part_that_cannot_be_built_is_named():
    config = Config({'model': {'type': 'EncoderDecoder', 'backbone': {'type': 'ResNet', 'depth': 50, 'dept': 1}}})
    said = r'model\.backbone\.dept is not a setting of ResNet. Did you mean depth'
    with pytest.raises(ConfigError, match=said), explained(config, 'model'):
        MODELS.build({**config.model.backbone, 'type': 'mmseg.ResNet'})


def test_errors_of_user_code_are_not_changed():
    class Own:
        def __init__(self) -> None:
            raise KeyError('own')

    with pytest.raises(KeyError, match='own'), explained({'model': {'type': Own}}, 'model'):
        MODELS.build({'type': Own})


def test_the_registries_raise_their_own_errors_outside_of_a_command():
    with pytest.raises(KeyError, match='Nope is not in the'):
        MODELS.build({'type': 'Nope'})
