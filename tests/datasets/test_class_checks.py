"""Data sets whose classes a model cannot learn or be scored on: no names, other names, a single class."""

import copy

import pytest

from rass_mm.apis import prepare_config, train
from rass_mm.config import load_config
from rass_mm.datasets.class_checks import check_split, class_faults, ignored_faults, single_class_is_zero
from rass_mm.datasets.classes import follow_classes
from rass_mm.errors import ConfigError

STRICT, PLAIN = [{'type': 'LoadLabelStrict'}], [{'type': 'LoadAnnotations'}]
RASS, SCR = 'rass/rass_scenes_tiny.py', 'scr/scr_scenes_tiny.py'


def own(name=RASS, classes=None, **options):
    config = load_config(name)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        metainfo = {} if classes is None else {'metainfo': {'classes': classes}}
        config[loader].dataset.update(copy.deepcopy({'type': 'BaseSegDataset', **metainfo, **options}))
    follow_classes(config)
    return config


@pytest.mark.parametrize('loader', ['train_dataloader', 'val_dataloader', 'test_dataloader'])
def test_data_without_names_are_an_error_with_the_key(loader):
    with pytest.raises(ConfigError, match=rf'Set {loader}\.dataset\.metainfo\.classes to the names'):
        check_split(own(), loader)
    config = own()
    config.train_dataloader.dataset['metainfo'] = {'classes': ('a', 'b')}
    config.model.decode_head.num_classes = config.num_classes
    follow_classes(config)  # which gives the names to the other data sets
    check_split(config, loader)


def test_a_misspelled_metainfo_is_named():
    config = own(metainfos=dict(classes=('a', 'b')))
    with pytest.raises(ConfigError, match=r'train_dataloader\.dataset\.metainfos is not .* Did you mean metainfo'):
        check_split(config, 'train_dataloader')


def test_data_alone_may_have_no_names():
    assert list(class_faults({}, 'train_dataloader.dataset', {'type': 'BaseSegDataset'})) == []


@pytest.mark.parametrize(
    ('options', 'found'),
    [
        (dict(reduce_zero_label=True, pipeline=PLAIN), True),
        (dict(pipeline=STRICT), True),
        (dict(pipeline=PLAIN), False),  # mmseg's labels 0 and 1 for a single channel
        (dict(type='CamVidDataset', metainfo=dict(classes=('car',)), pipeline=PLAIN), True),
        (dict(metainfo=dict(classes=('road', 'car')), reduce_zero_label=True), False),
    ],
)
def test_a_single_class_that_is_id_0_is_found(options, found):
    dataset = {'type': 'BaseSegDataset', 'metainfo': {'classes': ('car',)}, **options}
    assert single_class_is_zero(dataset) is found


@pytest.mark.parametrize('reduce', [False, True])
def test_a_single_class_is_refused_with_the_fix(reduce):
    config = own(classes=('thing',), reduce_zero_label=reduce)
    with pytest.raises(ConfigError, match=r"metainfo\.classes=\('background', 'thing'\) and reduce_zero_label=False"):
        check_split(config, 'train_dataloader')
    check_split(own(classes=('background', 'thing')), 'train_dataloader')


def test_a_restorer_may_have_a_single_class():
    pytest.importorskip('mmagic')
    config = load_config(SCR)
    config.train_dataloader.dataset.update(type='BaseSegDataset', metainfo={'classes': ('thing',)})
    follow_classes(config)
    check_split(config, 'train_dataloader')


def ignored(dataset=None, loaded=None, head=None, metric=None, strict=True):
    """Returns the messages about a config with these values of `ignore_index`."""

    def value(given):
        return {} if given is None else {'ignore_index': given}

    step = {'type': 'LoadLabelStrict', **value(loaded)} if strict else {'type': 'LoadAnnotations'}
    part = {'type': 'BaseSegDataset', 'pipeline': [step], **value(dataset)}
    config = {
        'model': {'type': 'EncoderDecoder', 'decode_head': {'type': 'FCNHead', **value(head)}},
        'val_evaluator': [{'type': 'IoUMetric', **value(metric)}],
    }
    return [
        fault for split in ('train', 'val') for fault in ignored_faults(config, f'{split}_dataloader.dataset', part)
    ]


def test_an_ignored_id_that_has_no_effect_is_named():
    train, val = ignored(dataset=0)
    assert train.startswith('train_dataloader.dataset.ignore_index=0 has no effect: id 255 is ignored')
    assert 'reduce_zero_label=True' in train and val.startswith('val_dataloader')
    assert ignored() == ignored(dataset=255) == ignored(0, 0, 0, 0) == []


def test_an_id_that_is_ignored_in_some_places_only_is_named():
    (head,) = ignored(loaded=9, metric=9)
    assert 'Set model.decode_head.ignore_index=9' in head
    (metric,) = ignored(loaded=9, head=9)
    assert 'Set val_evaluator.0.ignore_index=9' in metric


def test_without_strict_loading_the_head_and_the_metric_decide():
    assert ignored(strict=False) == ignored(head=9, metric=9, strict=False) == ignored(9, 0, 9, 9, strict=False) == []
    assert len(ignored(dataset=9, strict=False)) == 2
    assert 'id 255 is ignored' in ignored(dataset=9, head=9, strict=False)[0]


@pytest.mark.parametrize('key', ['model.decode_head.ignore_index', 'val_evaluator.ignore_index'])
def test_training_refuses_an_id_that_is_ignored_in_some_places_only(key, scenes, tmp_path):
    roots = {f'{split}_dataloader.dataset.data_root': str(scenes) for split in ('train', 'val')}
    config = load_config('baselines/resnet_scenes_tiny.py', {**roots, key: 9})
    with pytest.raises(ConfigError, match='is loaded with the ignored id 255.*ignores id 9'):
        train(prepare_config(config, work_dir=str(tmp_path)))
