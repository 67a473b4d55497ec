"""Every shipped config parses, stays small, names registered parts and builds."""

import copy
import functools
import importlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from torch.overrides import TorchFunctionMode

import rass_mm
from rass_mm.config import load_config
from rass_mm.datasets.classes import follow_classes
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.engine.mixed_precision import fitted_precision
from rass_mm.errors import ConfigError

RASS_ADE = 'rass/rass_ade20k_lq.py'
BASELINES = ('mask2former_swin_l', 'segformer_b0', 'segformer_b5', 'segnext_l')
LEAVES = sorted(path for path in rass_mm.config_path().rglob('*.py') if '_base_' not in path.parts)


class LinspaceOnCPU(TorchFunctionMode):
    """mmseg's Swin reads the values of one small `linspace`, which the meta device does not have."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault('device', 'cpu')
        return func(*args, **kwargs)


def build_on_meta(model):
    with torch.device('meta'), LinspaceOnCPU():
        return MODELS.build(model)


@functools.cache
def read(name):
    return Config.fromfile(str(rass_mm.config_path(name)))


def shipped(name):
    return copy.deepcopy(read(name))


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_config_builds_without_weights(path, tmp_path):
    if path.parent.name == 'scr':
        pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
    config = Config.fromfile(str(path))
    init_default_scope('mmseg')
    model = config.model
    if model.type == 'RestoreThenSegment':
        assert MODELS.get(model.type) and MODELS.get(model.restorer.type)  # which loads a trained file
        model = model.segmentor
    restores = model.type.startswith('mmagic.')
    if restores:
        pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
        importlib.import_module('rass_mm.restoration')  # what the config's custom_imports do
    based = next((part for part in (model, model.get('backbone') or {}) if 'base' in part), None)
    if based is not None:
        layout = 'scenes-tiny' if 'tiny' in path.stem else 'sd21-base'
        write_random_base(tmp_path / 'base', layout, weights=False)
        based.base = str(tmp_path / 'base')
    if model.get('start'):
        model.start, model.trainable = None, True  # a trained file
    built = build_on_meta(model)
    learns = 'optim_wrapper' in config
    assert any(parameter.requires_grad for parameter in built.parameters()) or not learns
    check_data(config, getattr(built, 'classes', ()) if restores else range(model.decode_head.num_classes))
    if restores and learns:
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
def test_config_agrees_with_its_data_and_takes_other_data(path):
    if path.parent.name == 'scr':
        pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
    config = Config.fromfile(str(path))
    before = plain(config)
    follow_classes(config)
    assert plain(config) == before
    if 'train_dataloader' not in config:
        return
    for split in ('train', 'val', 'test'):
        config[f'{split}_dataloader'].dataset.update(
            type='BaseSegDataset', metainfo={'classes': ['one', 'other', 'third']}
        )
    follow_classes(config)
    model = config.model.get('segmentor', config.model)
    if 'decode_head' in model:
        assert model.decode_head.num_classes == 3
    found = [part.classes for part in (model, model.get('backbone') or {}) if part.get('classes')]
    assert found == [['one', 'other', 'third']] * len(found)


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


def plain(config):
    """A config as nested dicts and lists, without what differs between any two files."""
    return {key: value for key, value in config.to_dict().items() if key not in ('filename', 'text')}


@pytest.mark.parametrize('model', BASELINES)
def test_dt_and_ft_of_a_baseline_differ_in_the_degradation_of_training_images_only(model):
    dt, ft = (plain(shipped(f'baselines/{model}_{kind}_ade20k_lq.py')) for kind in ('dt', 'ft'))
    clean, degraded = (config['train_dataloader']['dataset'].pop('pipeline') for config in (dt, ft))
    assert clean == [step for step in degraded if step['type'] != 'LQDegradation'] != degraded
    assert (dt.pop('train_pipeline'), ft.pop('train_pipeline')) == (clean, degraded)
    assert dt == ft


@pytest.mark.parametrize('data', ['ade20k_lq', 'reallq'])
@pytest.mark.parametrize('model', BASELINES)
def test_r2s_of_a_baseline_is_its_dt_behind_the_restorer(model, data):
    pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
    dt, r2s = (plain(shipped(f'baselines/{model}_{kind}_{data}.py')) for kind in ('dt', 'r2s'))
    whole, inner = r2s.pop('model'), dt.pop('model')
    assert whole['segmentor'] == inner and set(whole) == {'type', 'restorer', 'segmentor'}
    assert whole['restorer']['base'] == shipped('scr/scr_ade20k.py').model.base
    assert (whole['restorer']['window'], whole['restorer']['overlap'], whole['restorer']['window_batch']) == (
        512,
        128,
        4,
    )
    assert r2s == dt


@pytest.mark.parametrize('kind', ['dt', 'ft', 'r2s'])
@pytest.mark.parametrize('model', BASELINES)
def test_reallq_variant_of_a_baseline_differs_in_the_test_data_only(model, kind):
    ade, real = (plain(shipped(f'baselines/{model}_{kind}_{data}.py')) for data in ('ade20k_lq', 'reallq'))
    check_reallq(real, ade)
    assert ade.pop('test_dataloader') == ade['val_dataloader']
    assert real == ade


def check_reallq(real, ade):
    """Takes what differs out of `real`: its test data is `ade`'s with the values of the one block."""
    block, own = real.pop('reallq'), real.pop('test_dataloader')
    assert block == plain(shipped('_base_/datasets/reallq.py'))['reallq']
    assert own == {**ade['test_dataloader'], 'dataset': {**ade['test_dataloader']['dataset'], **block['dataset']}}
    assert own['dataset']['type'] == 'RealLQDataset' and own['dataset']['img_suffix'] == '.jpg'
    assert own['dataset']['data_prefix'] == {'img_path': 'images/validation', 'seg_map_path': None}


@pytest.mark.parametrize('model', BASELINES)
def test_ft_baseline_shares_data_degradation_seed_and_length_with_rass(model):
    rass, baseline = (plain(shipped(name)) for name in (RASS_ADE, f'baselines/{model}_ft_ade20k_lq.py'))
    kept = {'model', 'optim_wrapper', 'param_scheduler', 'data_preprocessor', 'num_classes'}
    own = {key for key in {*rass, *baseline} if rass.get(key) != baseline.get(key)}
    assert {key for key in own if not key.startswith('_')} - {'embed', 'crop_size'} <= kept
    assert baseline['train_cfg'] == rass['train_cfg'] and baseline['randomness'] == {'seed': 0}
    assert baseline['param_scheduler'][-1]['end'] == baseline['train_cfg']['max_iters'] == 160000
    assert baseline['data_preprocessor']['size'] == rass['data_preprocessor']['size'] == (512, 512)
    assert baseline['model']['data_preprocessor'] == baseline['data_preprocessor']
    assert baseline['model']['decode_head']['num_classes'] == 150


def test_rass_on_reallq_differs_from_rass_in_the_test_data_only():
    for kind in ('', '_official'):
        ade, real = (plain(shipped(f'rass/rass_{data}{kind}.py')) for data in ('ade20k_lq', 'reallq'))
        check_reallq(real, ade)
        ade.pop('test_dataloader')
        assert real == ade


@pytest.mark.parametrize('name', ['rass/rass_ade20k_lq', 'rass/rass_reallq', 'baselines/segformer_b0_ft_reallq'])
def test_official_configs_alone_average_over_labelled_classes(name):
    mmsegs = {'type': 'IoUMetric', 'iou_metrics': ['mIoU']}
    assert shipped(f'{name}.py').val_evaluator == shipped(f'{name}.py').test_evaluator == mmsegs
    if name.startswith('rass'):
        official = shipped(f'{name}_official.py')
        published = {'type': 'MeanIoUMetric', 'iou_metrics': ['mIoU'], 'mean_over': 'present'}
        assert official.val_evaluator == official.test_evaluator == published


def test_clean_images_of_the_degraded_copy_are_named():
    config = shipped(RASS_ADE)
    assert config.clean_val == dict(img_path='images/validation', img_suffix='.jpg')
    assert config.train_dataloader.dataset.type == 'ADE20KDataset'
    for loader in (config.val_dataloader, config.test_dataloader):
        assert (loader.dataset.type, loader.dataset.img_suffix) == ('ADE20KLQDataset', '.png')


@pytest.mark.parametrize(
    ('model', 'millions'),
    # The paper's Mask2Former has 215.5 M; its SegFormer (84.7 M) has the authors' wider head.
    [('mask2former_swin_l', 215.5), ('segformer_b5', 82.0), ('segformer_b0', 3.8), ('segnext_l', 48.9)],
)
def test_baselines_have_the_published_number_of_parameters(model, millions):
    init_default_scope('mmseg')
    config = shipped(f'baselines/{model}_ft_ade20k_lq.py').model
    assert count(config) == millions
    if model == 'segformer_b5':
        config.decode_head.channels = 768
        assert count(config) == 84.7


def count(model):
    return round(sum(parameter.numel() for parameter in build_on_meta(model).parameters()) / 1e6, 1)


PUBLISHED = {
    'mask2former_swin_l': 'mask2former/mask2former_swin-l-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py',
    'segformer_b0': 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'segformer_b5': 'segformer/segformer_mit-b5_8xb2-160k_ade20k-512x512.py',
    'segnext_l': 'segnext/segnext_mscan-l_1xb16-adamw-160k_ade20k-512x512.py',
}


@pytest.mark.parametrize('model', BASELINES)
def test_baselines_are_built_and_optimised_as_mmsegs_own(model):
    """Tensors, learning rates, weight decays and schedule against the configs that come with mmsegmentation."""
    path = Path(mmseg.__file__).parent / '.mim' / 'configs' / PUBLISHED[model]
    if not path.is_file():
        pytest.skip('this installation of mmsegmentation carries no configs')
    init_default_scope('mmseg')
    found, expected = (
        settings(Config.fromfile(str(file)))
        for file in (rass_mm.config_path(f'baselines/{model}_ft_ade20k_lq.py'), path)
    )
    assert found[0].keys() == expected[0].keys() and found == expected


def settings(config):
    """Parameter -> shape, learning rate, weight decay; and what else of the optimiser and the schedule counts."""
    built = build_on_meta(config.model)
    names = {id(parameter): name for name, parameter in built.named_parameters()}
    optimizer = build_optim_wrapper(built, {**config.optim_wrapper, 'type': 'OptimWrapper'}).optimizer
    parameters = {
        names[id(parameter)]: (tuple(parameter.shape), group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    others = {key: config.model.data_preprocessor[key] for key in ('mean', 'std', 'bgr_to_rgb', 'pad_val')}
    schedulers = [{'eta_min': None, **step} for step in config.param_scheduler]
    return parameters, type(optimizer), config.optim_wrapper.get('clip_grad'), schedulers, others


def test_unknown_config_lists_those_there_are():
    with pytest.raises(ConfigError, match='rass/rass_ade20k_lq.py'):
        rass_mm.config_path('rass/no_such.py')


def test_an_unknown_config_suggests_similar_names_only(tmp_path):
    (tmp_path / 'my_roads.py').touch()
    (tmp_path / 'my_roads.txt').touch()
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / 'my_road.py')
    fault = f'No file {tmp_path}/my_road.py, and no shipped config of that name.'
    assert str(caught.value).startswith(fault) and f'Did you mean {tmp_path}/my_roads.py?' in str(caught.value)
    assert 'Available' not in str(caught.value) and 'roads.txt' not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_config('rass/rass_scene_tiny.py')
    assert str(caught.value) == (
        'No file rass/rass_scene_tiny.py, and no shipped config of that name. Did you mean rass/rass_scenes_tiny.py? '
        'Also similar: rass/rass_camvid_tiny.py, rass/rass_scenes_tiny_mask2former.py.'
    )


@pytest.mark.parametrize('name', ['../x', '../setup.py', 'rass/../../README.md', '/'])
def test_names_that_leave_the_folder_of_the_configs_are_refused(name):
    with pytest.raises(ConfigError, match="relative to .*configs and do not contain '..'"):
        rass_mm.config_path(name)


def test_configs_can_be_read_in_several_threads():
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(load_config, ['rass/rass_scenes_tiny.py', 'rass/rass_ade20k_lq.py'] * 20))
    assert len({config.pretty_text for config in found}) == 2
