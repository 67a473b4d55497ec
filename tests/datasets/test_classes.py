"""Propagation of the classes of a data set in a config: values that are set, kept and refused."""

import copy

import pytest
from mmengine.config import Config

from rass_mm.config import load_config
from rass_mm.datasets.class_checks import check_split
from rass_mm.datasets.classes import follow_classes
from rass_mm.datasets.metainfo import dataset_classes
from rass_mm.datasets.scenes import SCENE_CLASSES
from rass_mm.errors import ConfigError
from rass_mm.segmentation.testing import use_tta

NAMES = ['ground', 'wall', 'roof']
OWN = {'type': 'BaseSegDataset', 'metainfo': {'classes': tuple(NAMES)}}
RASS, RESNET = 'rass/rass_scenes_tiny.py', 'baselines/resnet_scenes_tiny.py'
MASKS = 'rass/rass_scenes_tiny_mask2former.py'


def own(name, **options):
    """Returns a shipped config with training data of three classes; validation and test data have no class names."""
    config = load_config(name, {f'{split}_dataloader.dataset.type': 'BaseSegDataset' for split in ('val', 'test')})
    config.train_dataloader.dataset.update(copy.deepcopy(OWN))
    config.merge_from_dict(options)
    return config


def checks(config):
    """Returns `num_classes` of each label check, in order."""
    found = []

    def walk(value):
        if isinstance(value, dict):
            found.extend([value['num_classes']] if value.get('type') == 'LoadLabelStrict' else [])
            value = list(value.values())
        for item in value if isinstance(value, list | tuple) else ():
            walk(item)

    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'tta_pipeline'):
        walk(config[loader])
    return found


@pytest.mark.parametrize('name', [RASS, RESNET, MASKS, 'rass/rass_camvid_tiny.py', 'baselines/resnet_camvid_tiny.py'])
def test_heads_names_and_label_checks_follow(name):
    config = own(name)
    follow_classes(config)
    head, model = config.model.decode_head, config.model
    assert head.num_classes == config.num_classes == 3 and checks(config) == [3, 3, 3, 3]
    assert 'classes' not in model or model.classes == NAMES
    if name == MASKS:
        assert head.loss_cls.class_weight == [1.0] * 3 + [0.1]
    assert [dataset_classes(config[f'{split}_dataloader'].dataset) for split in ('val', 'test')] == [NAMES, NAMES]
    again = copy.deepcopy(config)
    follow_classes(again)
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize('name', ['scr/scr_scenes_tiny.py', 'scr/scr_ade20k.py', 'scr/scr_camvid_tiny.py'])
def test_a_restorer_follows(name):
    pytest.importorskip('mmagic')
    config = load_config(name)
    config.train_dataloader.dataset.update(copy.deepcopy(OWN))
    follow_classes(config)
    assert config.model.classes == NAMES
    assert [step.num_classes for step in config.train_dataloader.dataset.pipeline if 'num_classes' in step] == [3]


def test_models_inside_others_follow():
    config = own('baselines/resnet_scenes_tiny_r2s.py')
    follow_classes(config)
    assert config.model.segmentor.decode_head.num_classes == 3
    config = own(RASS)
    use_tta(config)
    follow_classes(config)
    assert config.model.module.decode_head.num_classes == 3 and config.model.module.classes == NAMES


def test_missing_values_are_set():
    config = own(RASS, num_classes=None)
    del config.model['classes'], config.model.decode_head['num_classes']
    for loader in ('train_dataloader', 'test_dataloader'):
        for step in config[loader].dataset.pipeline:
            step.pop('num_classes', None)
    follow_classes(config)
    assert config.model.classes == NAMES and config.model.decode_head.num_classes == 3
    assert checks(config) == [3, 3, 3, 3]


def test_names_may_be_in_a_file(tmp_path):
    (tmp_path / 'names.txt').write_text('\n'.join(NAMES))
    config = own(RASS)
    config.train_dataloader.dataset.metainfo = {'classes': str(tmp_path / 'names.txt')}
    follow_classes(config)
    assert config.model.classes == NAMES


def test_chosen_classes_of_a_known_data_set_count():
    config = load_config('rass/rass_camvid_tiny.py')
    for split in ('train', 'val', 'test'):
        config[f'{split}_dataloader'].dataset.metainfo = {'classes': ['sky', 'road', 'car']}
    follow_classes(config)
    assert config.model.decode_head.num_classes == 3 and config.model.classes == ['sky', 'road', 'car']


def test_parts_of_a_wrapper_are_read():
    config = own(RASS)
    part = config.train_dataloader.dataset
    config.train_dataloader.dataset = {'type': 'ConcatDataset', 'datasets': [part, copy.deepcopy(part)]}
    follow_classes(config)
    assert config.model.decode_head.num_classes == 3
    assert checks(config) == [3, 3, 3, 3, 3]


def test_auxiliary_heads_follow_and_may_detect_edges():
    config = own(RESNET)
    head = {'type': 'FCNHead', 'num_classes': 12, 'loss_decode': [{'type': 'CrossEntropyLoss'}]}
    config.model.auxiliary_head = [head, {**head, 'num_classes': None}, {**head, 'num_classes': 2}]
    follow_classes(config)
    assert [one.num_classes for one in config.model.auxiliary_head] == [3, 3, 2]


WRONG = {
    'head': (RASS, {'model.decode_head.num_classes': 7}, r'model\.decode_head\.num_classes=7'),
    'one head of several': (RESNET, {'model.auxiliary_head': [{'num_classes': 5}]}, r'auxiliary_head\[0\].*=5'),
    'list of names': (RASS, {'model.classes': ['a', 'b']}, r'model\.classes has 2 classes \(a, b\)'),
    'another order': (RASS, {'model.classes': NAMES[::-1]}, r'model\.classes has 3 classes \(roof, wall, ground\)'),
    'a data set of another count': (RASS, {'model.classes': 'CamVidDataset'}, r'model\.classes has 11 classes'),
    'names of a backbone': (
        'diffusion/fcn_diffusion-tiny_1xb8-170_scenes-96x96.py',
        {'model.backbone.classes': ['a']},
        r'model\.backbone\.classes has 1 class \(a\)',
    ),
    'weights of a query head': (MASKS, {'model.decode_head.loss_cls.class_weight': [1, 2, 3]}, '3 values instead of 4'),
    'weights of a pixel head': (
        RESNET,
        {'model.decode_head.loss_decode.class_weight': [0.5, 1.0]},
        r'loss_decode\.class_weight has 2 values instead of 3',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_contradictions_are_errors_that_name_both(case):
    name, options, message = WRONG[case]
    config = own(name, **options)
    with pytest.raises(ConfigError, match=f'(?s)BaseSegDataset. has 3 classes .ground, wall, roof.*{message}'):
        follow_classes(config)


def test_all_contradictions_are_named_at_once():
    with pytest.raises(ConfigError, match=r'(?s)decode_head\.num_classes=7.*model\.classes has 1'):
        follow_classes(own(RASS, **{'model.decode_head.num_classes': 7, 'model.classes': ['a']}))


def test_own_settings_that_agree_are_kept():
    words = ['the ground', 'a wall', 'the roof']  # of the prompts
    weights = {'model.decode_head.loss_decode.class_weight': [0.5, 1.0, 2.0]}
    config = own(RASS, **{'model.decode_head.num_classes': 3, 'model.classes': words, **weights})
    follow_classes(config)
    assert config.model.classes == words and config.model.decode_head.num_classes == 3
    assert config.model.decode_head.loss_decode.class_weight == [0.5, 1.0, 2.0]


@pytest.mark.parametrize('dataset', [{'type': 'NoSuchDataset'}, {'type': 'BaseSegDataset'}, {'type': 'BaseDataset'}])
def test_data_without_known_names_change_nothing(dataset):
    config = Config({'model': load_config(RASS).model, 'train_dataloader': {'dataset': dataset}})
    before = config.to_dict()
    follow_classes(config)
    assert config.to_dict() == before


def test_a_config_of_mmseg_alone_is_checked_against_its_data():
    head = {
        'type': 'FCNHead',
        'num_classes': 19,
        'loss_decode': {'type': 'CrossEntropyLoss', 'class_weight': [1.0] * 19},
    }
    config = Config({'model': {'type': 'EncoderDecoder', 'decode_head': head}, 'train_dataloader': {'dataset': OWN}})
    with pytest.raises(ConfigError, match=r'decode_head\.num_classes=19'):
        follow_classes(config)
    config.num_classes = 19  # as in mmseg's Mask2Former configs
    follow_classes(config)
    assert config.model.decode_head.num_classes == 3
    assert config.model.decode_head.loss_decode.class_weight == [1.0] * 3


def test_other_classes_of_a_split_are_an_error():
    config = own(RASS)
    follow_classes(config)
    check_split(config, 'val_dataloader')
    config.val_dataloader.dataset.metainfo.classes = ['ground', 'roof', 'wall']
    with pytest.raises(
        ConfigError, match='(?s)val_dataloader.*ground, roof, wall.*train_dataloader.*ground, wall, roof'
    ):
        check_split(config, 'val_dataloader')
    config = load_config(RASS)
    config.test_dataloader.dataset.type = 'CamVidDataset'
    with pytest.raises(
        ConfigError, match='(?s)test_dataloader.dataset .CamVidDataset. has 11 .*train_dataloader .ScenesDataset'
    ):
        check_split(config, 'test_dataloader')
    assert dataset_classes(config.train_dataloader.dataset) == list(SCENE_CLASSES)
