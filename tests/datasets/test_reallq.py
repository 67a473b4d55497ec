"""RealLQ in both layouts: detection, meaning of the ids, and labels in the wrong folder."""

import functools
import logging

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS
from reallq_layouts import ADE, DETECTRON2, NAMES, class_maps, write_images, write_labels

from rass_mm.config import load_config
from rass_mm.datasets.check.run import check_config
from rass_mm.datasets.preflight import check_data_folders
from rass_mm.errors import DataError

SHIPPED = 'baselines/segformer_b0_dt_reallq.py'
BOTH = pytest.mark.parametrize(('prefix', 'shifted'), [(DETECTRON2, False), (ADE, True)], ids=['detectron2', 'ade'])


@pytest.fixture
def root(tmp_path):
    """Data root with images but without labels."""
    write_images(tmp_path)
    return tmp_path


def built(root, **options):
    init_default_scope('mmseg')
    steps = [dict(type='LoadImageStrict'), dict(type='LoadLabelStrict', num_classes=150)]
    return DATASETS.build(dict(type='RealLQDataset', data_root=str(root), pipeline=steps, **options))


def loaded(root, **options):
    """Returns name -> label as loaded by a test."""
    dataset = built(root, **options)
    assert len(dataset) == len(NAMES)
    return {name: sample['gt_seg_map'] for name, sample in zip(NAMES, dataset, strict=True)}


def same(found, labels):
    return all(np.array_equal(found[name], labels[name]) for name in NAMES)


@functools.cache
def shipped():
    return load_config(SHIPPED)


def report_on(root, **options):
    dataset = {**shipped().test_dataloader.dataset, 'data_root': str(root), **options}
    (report,) = check_config(Config({'test_dataloader': {'dataset': dataset}}), ['test'])
    return report


@BOTH
def test_each_layout_is_found_and_read_by_its_rule(root, prefix, shifted):
    labels = class_maps()
    write_labels(root, prefix, labels, shifted)
    assert same(loaded(root), labels)
    assert built(root).data_prefix['seg_map_path'] == f'{root}/{prefix}'
    assert built(root).metainfo['reduce_zero_label'] is shifted
    report = report_on(root)
    assert (report.problems, report.hints, report.images) == (0, [], 4)
    assert report.data['labels'] == f'{root}/{prefix}' and report.data['reduce_zero_label'] is shifted
    counts = np.bincount(np.concatenate([label.ravel() for label in labels.values()]), minlength=256)
    assert [row['pixels'] for row in report.classes] == counts[:150].tolist()
    assert report.ignored['pixels'] == counts[255]


def test_of_both_layouts_the_released_codes_is_used_and_the_log_says_so(root, caplog):
    first, second = class_maps(), class_maps(highest=100)
    write_labels(root, DETECTRON2, first, False)
    write_labels(root, ADE, second, True)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger=logger.name):
            assert same(loaded(root), first)
            assert f'Those in {DETECTRON2} are used' in caplog.text
            caplog.clear()
            assert same(loaded(root, data_prefix=dict(seg_map_path=ADE)), second) and not caplog.text
            assert same(loaded(root, data_prefix=dict(seg_map_path=DETECTRON2)), first)
            assert same(loaded(root, reduce_zero_label=True), second)  # the layout for which it is true
            assert f'Those in {ADE} are used' in caplog.text
    finally:
        logger.removeHandler(caplog.handler)


def test_an_empty_folder_is_not_a_layout(root):
    (root / DETECTRON2).mkdir(parents=True)
    write_labels(root, ADE, class_maps(), True)
    assert same(loaded(root), class_maps())


def test_a_partially_copied_folder_is_not_preferred(root):
    labels = class_maps()
    write_labels(root, ADE, labels, True)
    write_labels(root, DETECTRON2, labels, False)
    (root / DETECTRON2 / f'{NAMES[0]}.png').unlink()
    assert same(loaded(root), labels) and built(root).data_prefix['seg_map_path'] == f'{root}/{ADE}'


def test_a_folder_of_another_name_needs_the_rule(root):
    labels = class_maps()
    write_labels(root, 'plain', labels, False)
    write_labels(root, 'from_one', labels, True)
    assert same(loaded(root, data_prefix=dict(seg_map_path='plain'), reduce_zero_label=False), labels)
    assert same(loaded(root, data_prefix=dict(seg_map_path=f'{root}/from_one'), reduce_zero_label=True), labels)
    with pytest.raises(DataError, match='Set reduce_zero_label to False for ids 0 to 149'):
        built(root, data_prefix=dict(seg_map_path='plain'))


@BOTH
def test_an_explicit_rule_overrides_the_folder_name(root, prefix, shifted):
    labels = class_maps()
    write_labels(root, prefix, labels, not shifted)
    assert same(loaded(root, reduce_zero_label=not shifted), labels)
    assert same(loaded(root, data_prefix=dict(seg_map_path=prefix), reduce_zero_label=not shifted), labels)


@pytest.mark.parametrize('empty', [False, True])
def test_without_labels_every_place_is_named_before_anything_starts(root, empty):
    if empty:
        (root / ADE).mkdir(parents=True)
    dataset = shipped().test_dataloader.dataset | {'data_root': str(root)}
    with pytest.raises(DataError) as caught:
        check_data_folders({'dataset': dataset}, 'test_dataloader')
    message = str(caught.value)
    assert message.startswith('test_dataloader: No labels of RealLQ')
    assert f'{root}/{DETECTRON2} (ids 0 to 149, 255 ignored): does not exist' in message
    found = 'has no file that ends in .png' if empty else 'does not exist'
    assert f'{root}/{ADE} (ids 1 to 150, 0 ignored): {found}' in message
    assert f'{root}/images/validation/*.jpg' in message and 'set data_root' in message
    with pytest.raises(DataError, match='No labels of RealLQ'):
        built(root)
    report = report_on(root)
    assert report.problems == 1 and report.error == message


def test_images_are_checked_first(root):
    (root / 'images' / 'validation').rename(root / 'images' / 'val')
    for dataset in (dict(type='RealLQDataset'), shipped().test_dataloader.dataset):
        with pytest.raises(DataError, match=f'{root}/images/validation does not exist'):
            check_data_folders({'dataset': {**dataset, 'data_root': str(root)}}, 'test_dataloader')


def test_labels_from_1_to_150_in_the_folder_of_0_to_149(root):
    labels = class_maps()
    write_labels(root, DETECTRON2, labels, True)
    report = report_on(root)
    assert [entry['id'] for entry in report.out_of_range] == [150]
    (hint,) = report.hints
    assert 'Id 150 is out of range' in hint and 'shifted by one' in hint and 'ids 1 to 150, 0 ignored' in hint
    assert f'reduce_zero_label=True in the data set or move the files to {ADE}' in hint
    with pytest.raises(DataError, match='set reduce_zero_label=True'):
        loaded(root)
    fixed = report_on(root, reduce_zero_label=True)
    assert (fixed.problems, fixed.hints) == (0, []) and same(loaded(root, reduce_zero_label=True), labels)
    (root / 'annotations').mkdir()
    (root / DETECTRON2).rename(root / ADE)
    moved = report_on(root)
    assert (moved.problems, moved.hints) == (0, []) and same(loaded(root), labels)


def test_labels_from_0_to_149_in_the_folder_of_1_to_150(root):
    labels = class_maps()
    write_labels(root, ADE, labels, False)
    (hint,) = report_on(root).hints
    assert 'Id 255 occurs and id 150 never' in hint and 'shifted by one' in hint and 'ids 0 to 149, 255 ignored' in hint
    assert f'reduce_zero_label=False in the data set or move the files to {DETECTRON2}' in hint
    fixed = report_on(root, reduce_zero_label=False)
    assert (fixed.problems, fixed.hints) == (0, []) and same(loaded(root, reduce_zero_label=False), labels)


def test_a_rule_that_contradicts_the_right_folder_is_named_alone(root):
    write_labels(root, DETECTRON2, class_maps(), False)
    (hint,) = report_on(root, reduce_zero_label=True).hints
    assert hint.endswith('set reduce_zero_label=False in the data set.')


def test_a_few_files_of_the_other_layout_are_not_called_a_shift(root):
    labels = class_maps()
    write_labels(root, DETECTRON2, labels, False)
    cv2.imwrite(str(root / DETECTRON2 / 'a.png'), labels['a'] + np.uint8(1))
    report = report_on(root)
    assert [entry['files'] for entry in report.out_of_range] == [[f'{root}/{DETECTRON2}/a.png']]
    (hint,) = report.hints
    assert 'some files may have the other layout' in hint and 'shifted' not in hint


@BOTH
@pytest.mark.parametrize('case', ['few classes', 'nothing ignored', 'wrong file', 'chosen classes'])
def test_right_labels_get_no_hint(root, prefix, shifted, case):
    labels, options = class_maps(highest=20 if case == 'few classes' else 149), {}
    if case == 'nothing ignored':
        labels = {name: np.where(label == 255, 0, label).astype(np.uint8) for name, label in labels.items()}
    elif case == 'chosen classes':
        options['metainfo'] = dict(classes=ADE20KDataset.METAINFO['classes'][1:])
        options['pipeline'] = [dict(type='LoadLabelStrict', num_classes=149)]
    write_labels(root, prefix, labels, shifted)
    if case == 'wrong file':
        cv2.imwrite(str(root / prefix / 'a.png'), np.arange(4800).reshape(60, 80).astype(np.uint8) % 60 + 140)
    report = report_on(root, **options)
    assert report.hints == [] and bool(report.problems) == (case == 'wrong file')


def test_no_reallq_config_sets_a_layout():
    from rass_mm import config_path

    leaves = [file for folder in ('baselines', 'rass') for file in config_path(folder).glob('*reallq*.py')]
    assert len(leaves) == 14
    for file in leaves:
        assert 'RealLQDataset' not in file.read_text() and 'test_dataloader = _base_.reallq' in file.read_text()
    block = Config.fromfile(str(config_path('_base_/datasets/reallq.py')))
    assert set(block.to_dict()) - {'filename', 'text'} == {'reallq'}
