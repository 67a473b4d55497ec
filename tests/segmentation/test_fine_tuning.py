"""Training on other classes from a trained segmentor, and initial weights of its parts."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from rass_mm.apis import prepare_config, train
from rass_mm.config import check_config_data, load_config
from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.pretrained import check_pretrained
from rass_mm.engine.trained_state import tensors_of
from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.segmentation.entry_points import settle
from rass_mm.segmentation.fine_tuning import class_tensors
from rass_mm_cli.main import main

NAMES = {
    'rass': ('rass/rass_scenes_tiny.py', {'decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'}),
    'mask2former': (
        'rass/rass_scenes_tiny_mask2former.py',
        {'decode_head.cls_embed.weight', 'decode_head.cls_embed.bias'},
    ),
    'resnet': ('baselines/resnet_scenes_tiny.py', {'decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'}),
}
OWN = {'type': 'BaseSegDataset', 'metainfo': {'classes': ['ground', 'wall', 'roof']}}


def config_of(kind, base, **options):
    """Returns the shipped config of 12 classes."""
    place = {} if kind == 'resnet' else {'model.backbone.base': str(base)}
    return load_config(NAMES[kind][0], {**place, **options})


def of_three_classes(kind, base, **options):
    config = config_of(kind, base, **options)
    for split in ('train', 'val', 'test'):
        config[f'{split}_dataloader'].dataset.update(OWN)
    settle(config)
    return config


def built(config, seed):
    init_default_scope('mmseg')
    torch.manual_seed(seed)
    model = MODELS.build(config.model)
    check_pretrained(model)
    model.init_weights()
    return model


@pytest.fixture(scope='module')
def trained(tmp_path_factory, tiny_base):
    """Checkpoints of 12 classes by kind, each with the values of another seed."""
    folder = tmp_path_factory.mktemp('trained')
    for kind in NAMES:
        model = built(config_of(kind, tiny_base), 1)
        state = {
            key: value + 0.001 if value.is_floating_point() else value for key, value in model.state_dict().items()
        }
        torch.save({'meta': {}, 'state_dict': state}, folder / f'{kind}.pth')
    return folder


@pytest.mark.parametrize('kind', NAMES)
def test_everything_but_the_class_tensors_is_loaded(trained, tiny_base, kind):
    file = trained / f'{kind}.pth'
    config = of_three_classes(kind, tiny_base, fine_tune=str(file))
    assert set(class_tensors(config.model)) == NAMES[kind][1]
    model = built(config, 2)
    given, own = tensors_of(load_local(file)['state_dict']), tensors_of(model.state_dict())
    assert given.keys() == own.keys()
    differ = {key for key in own if given[key].shape != own[key].shape or not torch.equal(given[key], own[key])}
    assert differ == NAMES[kind][1]


def test_heads_in_a_list_and_equal_counts_start_fresh_too(trained, tiny_base):
    config = config_of('resnet', tiny_base)
    head = {'type': 'FCNHead', 'in_channels': 64, 'in_index': 1, 'channels': 8, 'num_convs': 1, 'num_classes': 12}
    config.model.auxiliary_head = [head, {**head, 'in_channels': 128, 'in_index': 2}]
    expected = {f'auxiliary_head.{i}.conv_seg.{part}' for i in (0, 1) for part in ('weight', 'bias')}
    assert set(class_tensors(config.model)) == expected | NAMES['resnet'][1]
    config = config_of('resnet', tiny_base, fine_tune=str(trained / 'resnet.pth'))  # 12 other classes
    settle(config)
    head = load_local(trained / 'resnet.pth')['state_dict']['decode_head.conv_seg.weight']
    assert not torch.equal(built(config, 2).decode_head.conv_seg.weight, head)


def test_loading_other_classes_is_refused_with_the_name_of_the_switch(trained, tiny_base):
    file = str(trained / 'rass.pth')
    model = built(of_three_classes('rass', tiny_base), 0)
    with pytest.raises(CheckpointError, match='(?s)12 classes.*3 classes.*fine_tune=CHECKPOINT'):
        model.load_state_dict(load_local(file)['state_dict'])
    init = {'model.init_cfg': {'type': 'Pretrained', 'checkpoint': file}}
    with pytest.raises(CheckpointError, match='fine_tune=CHECKPOINT'):
        built(of_three_classes('rass', tiny_base, **init), 0)


@pytest.mark.parametrize('prefix', ['backbone', '.neck.'])
def test_parts_start_from_a_trained_model(trained, tiny_base, prefix):
    part = prefix.strip('.')
    init = {'type': 'Pretrained', 'checkpoint': str(trained / 'rass.pth'), 'prefix': prefix}
    model = built(of_three_classes('rass', tiny_base, **{f'model.{part}.init_cfg': init}), 2)
    given, own = load_local(trained / 'rass.pth')['state_dict'], tensors_of(model.state_dict())
    for key in own:
        assert torch.equal(own[key], given[key]) == key.startswith(f'{part}.'), key


def test_the_whole_model_starts_from_its_own_classes(trained, tiny_base):
    init = {'type': 'Pretrained', 'checkpoint': str(trained / 'rass.pth'), 'prefix': ''}
    model = built(config_of('rass', tiny_base, **{'model.init_cfg': init}), 2)
    given = tensors_of(load_local(trained / 'rass.pth')['state_dict'])
    assert all(torch.equal(value, given[key]) for key, value in tensors_of(model.state_dict()).items())


@pytest.mark.parametrize('key', ['fine_tune', 'model.backbone.init_cfg'])
def test_another_base_is_refused(trained, other_base, key):
    file = str(trained / 'rass.pth')
    value = file if key == 'fine_tune' else {'type': 'Pretrained', 'checkpoint': file, 'prefix': 'backbone'}
    with pytest.raises(CheckpointError, match='another base'):
        built(of_three_classes('rass', other_base, **{key: value}), 0)


def test_other_initializers_of_the_backbone_are_refused(tiny_base):
    with pytest.raises(ConfigError, match=r"init_cfg\.type is 'Normal'"):
        built(config_of('rass', tiny_base, **{'model.backbone.init_cfg': {'type': 'Normal'}}), 0)


def test_a_second_start_is_refused(tiny_base):
    with pytest.raises(ConfigError, match='fine_tune=.*load_from='):
        prepare_config(config_of('rass', tiny_base, fine_tune='a.pth', load_from='b.pth'))
    pytest.importorskip('mmagic')
    with pytest.raises(ConfigError, match=r'model\.start'):
        settle(load_config('scr/scr_scenes_tiny.py', {'fine_tune': 'a.pth'}))


def test_a_missing_file_or_another_network_is_named_by_its_setting(tiny_base, trained, tmp_path):
    for file, said in (
        (tmp_path / 'nofile.pth', r'^fine_tune: .*nofile\.pth does not exist'),
        (tmp_path, r'^fine_tune: .* is a folder\. It contains no \.pth'),
        (trained, r'^fine_tune: .* is a folder\. Pass a file in it, e\.g\. .*\.pth'),
    ):
        config = prepare_config(config_of('resnet', tiny_base, fine_tune=str(file)), work_dir=str(tmp_path / 'work'))
        with pytest.raises(CheckpointError, match=said):
            train(config)
        assert not (tmp_path / 'work').exists()
    model = MODELS.build(config_of('resnet', tiny_base).model)
    model.init_cfg = {'type': 'Pretrained', 'checkpoint': str(trained / 'rass.pth')}
    with pytest.raises(CheckpointError, match='does not match model .*--cfg-options fine_tune=FILE'):
        check_pretrained(model, str(trained / 'rass.pth'))
    with pytest.raises(CheckpointError, match=r'--cfg-options model\.init_cfg\.checkpoint=FILE'):
        check_pretrained(model)


def test_a_config_that_is_data_starts_from_files_below_it_only(tmp_path):
    with pytest.raises(ConfigError, match='fine_tune='):
        check_config_data({'fine_tune': '/elsewhere/rass.pth'}, 'own.json', [tmp_path])
    check_config_data({'fine_tune': str(tmp_path / 'rass.pth')}, 'own.json', [tmp_path])


CONFIG = """
_base_ = ['{shipped}']
own = dict(type='BaseSegDataset', data_root='{root}', metainfo=dict(classes=['a', 'b', 'c']), img_suffix='.png')
train_dataloader = dict(batch_size=2, dataset=dict(**own))
val_dataloader = val_evaluator = val_cfg = None
model = dict(backbone=dict(base='{base}'))
optim_wrapper = dict(optimizer=dict(lr=0, weight_decay=0))
param_scheduler = []
train_cfg = dict(max_iters=1)
{more}
"""


@pytest.mark.parametrize('place', ['config', 'command line'])
def test_the_command_trains_other_classes_from_a_checkpoint(trained, tiny_base, tmp_path, place):
    """With a learning rate of 0, the trained weights are the initial ones; the result loads without the switch."""
    file, rng = trained / 'rass.pth', np.random.default_rng(0)
    for folder, shape in (('img_dir', (96, 96, 3)), ('ann_dir', (96, 96))):
        (tmp_path / folder / 'train').mkdir(parents=True)
        for index in range(2):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels if len(shape) > 2 else pixels % 3).save(tmp_path / folder / f'train/{index}.png')
    more, options = (f"fine_tune = '{file}'", []) if place == 'config' else ('', [f'fine_tune={file}'])
    shipped = load_config(NAMES['rass'][0]).filename
    (tmp_path / 'own.py').write_text(CONFIG.format(shipped=shipped, root=tmp_path, base=tiny_base, more=more))
    command = ['train', str(tmp_path / 'own.py'), '--work-dir', str(tmp_path / 'work')]
    assert main([*command, *(['--cfg-options', *options] if options else [])]) == 0
    made, given = (load_local(path)['state_dict'] for path in (tmp_path / 'work' / 'iter_1.pth', file))
    differ = {key for key in tensors_of(made) if made[key].shape != given[key].shape or (made[key] != given[key]).any()}
    assert differ == NAMES['rass'][1] and len(made['decode_head.conv_seg.weight']) == 3
    model = MODELS.build(load_config(tmp_path / 'own.py').model)
    model.load_state_dict(made)
