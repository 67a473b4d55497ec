"""Every shipped config parses, stays small, names registered parts and builds."""

import importlib

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS, TRANSFORMS

import rass_mm
from rass_mm.apis import fitted_precision
from rass_mm.embedded.layouts import write_random_base
from rass_mm.errors import ConfigError

LEAVES = sorted(path for path in rass_mm.config_path().rglob('*.py') if '_base_' not in path.parts)


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_config_builds_without_weights(path, tmp_path):
    config = Config.fromfile(str(path))
    init_default_scope('mmseg')
    model = config.model
    if model.type == 'RestoreThenSegment':
        assert MODELS.get(model.type) and MODELS.get(model.restorer.type)  # which loads a trained file
        model = model.segmentor
    restores = model.type == 'mmagic.SCRRestorer'
    if restores:
        pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
        importlib.import_module('rass_mm.restoration')  # what the config's custom_imports do
    if restores or model.type == 'RASS':
        layout = 'scenes-tiny' if 'tiny' in path.stem else 'sd21-base'
        write_random_base(tmp_path / 'base', layout, weights=False)
        (model if restores else model.backbone).base = str(tmp_path / 'base')
    with torch.device('meta'):
        built = MODELS.build(model)
    assert any(parameter.requires_grad for parameter in built.parameters())
    check_data(config, built.classes if restores else range(model.decode_head.num_classes))
    if restores and 'optim_wrapper' in config:
        optimizers = build_optim_wrapper(built, fitted_precision(dict(config.optim_wrapper))).optim_wrappers
        assert set(optimizers) == {'generator'} | ({'critic'} if model.losses.score.loss_weight else set())


def check_data(config, classes):
    """The data sets are registered, their classes are the model's, and their pipelines build."""
    loaders = [config[key] for key in ('train_dataloader', 'val_dataloader', 'test_dataloader') if key in config]
    assert loaders
    for loader in loaders:
        named = DATASETS.get(loader.dataset.type).METAINFO.get('classes')
        labels = [step.num_classes for step in loader.dataset.pipeline if step.type == 'LoadLabelStrict']
        if named is not None:  # a data set of image pairs has no labels
            assert len(named) == len(classes) and (isinstance(classes, range) or list(named) == classes)
        assert labels == ([len(classes)] if named is not None else [])
        assert all(TRANSFORMS.build(step) is not None for step in loader.dataset.pipeline)


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_leaf_configs_are_short(path):
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 30


def test_rass_and_its_baseline_differ_in_the_model_only():
    for ours, theirs in (('rass_scenes_tiny', 'resnet_scenes_tiny'), ('rass_camvid_tiny', 'resnet_camvid_tiny')):
        rass, baseline = (
            Config.fromfile(str(rass_mm.config_path(f'{folder}/{name}.py')))
            for folder, name in (('rass', ours), ('baselines', theirs))
        )
        for key in ('train_dataloader', 'test_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg'):
            assert rass[key] == baseline[key], key
        channels = {'in_channels'}
        heads = [
            {k: v for k, v in config.model.decode_head.items() if k not in channels} for config in (rass, baseline)
        ]
        assert heads[0] == heads[1]


def test_ade20k_config_has_the_papers_schedule():
    config = Config.fromfile(str(rass_mm.config_path('rass/rass_ade20k_lq.py')))
    wrapper = config.optim_wrapper
    assert (wrapper.optimizer.type, wrapper.optimizer.lr, wrapper.optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == wrapper.paramwise_cfg.custom_keys.neck.lr_mult == 0.1
    assert wrapper.clip_grad.max_norm == 0.01
    assert config.train_cfg.max_iters == 160000 and config.train_dataloader.batch_size * 8 == 16


def test_unknown_config_lists_those_there_are():
    with pytest.raises(ConfigError, match='rass/rass_ade20k_lq.py'):
        rass_mm.config_path('rass/no_such.py')
