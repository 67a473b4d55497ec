"""Kinds of own data and configs: wrappers, classes as types, several evaluators, one class, binary masks, no labels."""

import json
import logging

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image

import rass_mm
from rass_mm.config import config_from_checkpoint
from rass_mm.engine.checkpoints import load_local
from rass_mm_cli.main import main

SHORT = """
train_cfg = dict(max_iters=2, val_interval=2)
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
"""
PLAIN = """
_base_ = ['{shipped}']
own = dict(type='BaseSegDataset', data_root='{root}', metainfo=dict(classes={classes}), img_suffix='.png')
train_dataloader = dict(batch_size=2, dataset=dict(**own, {more}))
val_dataloader = dict(batch_size=2, dataset=dict(**own, {more}))
test_dataloader = val_dataloader
"""
WRAPPED = """
_base_ = ['{shipped}']
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
own = dict(type=BaseSegDataset, metainfo=dict(classes=('a', 'b', 'c')), img_suffix='.png')
train_prefix = dict(img_path='img_dir/train', seg_map_path='ann_dir/train')
train = dict(**own, data_prefix=train_prefix, pipeline=_base_.train_pipeline)
val = dict(**own, data_prefix=dict(img_path='img_lq/val', seg_map_path='ann_dir/val'), pipeline=_base_.test_pipeline)
both = [dict(data_root='{root}/first', **train), dict(data_root='{root}/second', **train)]
train_dataloader = dict(batch_size=2, dataset=dict(
    _delete_=True, type=RepeatDataset, times=2, dataset=dict(type=ConcatDataset, datasets=both)))
parts = [dict(data_root='{root}/first', **val), dict(data_root='{root}/second', **val)]
val_dataloader = dict(batch_size=2, dataset=dict(_delete_=True, type=ConcatDataset, datasets=parts))
test_dataloader = val_dataloader
of_f_scores = dict(type='IoUMetric', iou_metrics=['mFscore'], prefix='f')
val_evaluator = [dict(type=IoUMetric, iou_metrics=['mIoU']), of_f_scores]
test_evaluator = val_evaluator
del own, train, val, both, parts  # a printed config would repeat them
"""


def write(root, count=2, label=lambda ids: ids % 3, seed=0):
    """Writes images and label maps in blocks of 16 pixels for training and validation."""
    rng = np.random.default_rng(seed)
    for split, images in (('train', 'img_dir/train'), ('val', 'img_lq/val')):
        for folder in (images, f'ann_dir/{split}'):
            (root / folder).mkdir(parents=True)
        for index in range(count):
            name = f'{root.name}{index}.png'
            Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(root / images / name)
            ids = label(np.kron(rng.integers(0, 6, (6, 6)), np.ones((16, 16), int))).astype(np.uint8)
            Image.fromarray(ids).save(root / 'ann_dir' / split / name)


def config_file(folder, template, name='baselines/resnet_scenes_tiny.py', **values):
    text = template.format(shipped=rass_mm.config_path(name), root=folder, **values)
    (folder / 'own.py').write_text(text + SHORT)
    return str(folder / 'own.py')


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def warnings():
    """Messages of mmengine's loggers at WARNING and above, also of loggers made later."""
    found = []

    class Collect(logging.Handler):
        def emit(self, record):
            found.append(record.getMessage())

    handler, build = Collect(logging.WARNING), MMLogger.__init__

    def build_and_listen(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.addHandler(handler)

    MMLogger.__init__ = build_and_listen
    yield found
    MMLogger.__init__ = build


def test_wrappers_types_and_several_evaluators_work_in_every_command(tmp_path):
    for name in ('first', 'second'):
        write(tmp_path / name)
    config, work = config_file(tmp_path, WRAPPED), tmp_path / 'work'
    assert run('check-data', config, '--json', tmp_path / 'found.json', '--workers', 1) == 0
    names = [part['name'] for part in json.loads((tmp_path / 'found.json').read_text())['data']]
    assert names == ['train[0]', 'train[1]', 'val[0]', 'val[1]', 'test[0]', 'test[1]']
    assert run('train', config, '--work-dir', work) == 0
    stored = config_from_checkpoint(load_local(work / 'iter_2.pth'), 'iter_2.pth')
    for kept in (stored, Config.fromfile(work / 'own.py')):
        assert kept.model.decode_head.num_classes == 3 and kept.val_evaluator[0].type == 'IoUMetric'
        assert kept.train_dataloader.dataset.dataset.datasets[1].type == 'BaseSegDataset'
    assert run('test', config, work / 'iter_2.pth', '--work-dir', work / 'test', '--out', work / 'maps') == 0
    record = json.loads((work / 'test' / 'metrics.json').read_text())
    assert {'mIoU', 'f/mFscore'} <= record['metrics'].keys() and record['images'] == 4
    assert 'first/img_lq/val' in record['protocol'] and 'second/img_lq/val' in record['protocol']
    assert len(list((work / 'maps').rglob('*.png'))) == 4
    assert run('report', work / 'test', '--out', tmp_path / 'report.md') == 0
    assert 'f/mFscore' in (tmp_path / 'report.md').read_text()


def test_other_images_of_the_same_names_are_another_table(tmp_path):
    records, metrics = [], {}
    for name, seed in (('one', 0), ('copy', 0), ('other', 1)):
        folder = tmp_path / name
        write(folder / 'data', seed=seed)
        (folder / 'own.py').write_text('')
        config = config_file(folder, PLAIN, classes=('a', 'b', 'c'), more="data_root='data'").replace('\n', '')
        text = (folder / 'own.py').read_text().replace(f"data_root='{folder}', ", '')
        (folder / 'own.py').write_text(text.replace("data_root='data'", f"data_root='{folder}/data'"))
        if name == 'one':
            assert run('train', config, '--work-dir', tmp_path / 'work') == 0
        assert run('test', config, tmp_path / 'work' / 'iter_2.pth', '--work-dir', folder / 'test') == 0
        records.append(folder / 'test' / 'metrics.json')
        metrics[name] = json.loads(records[-1].read_text())
    assert metrics['one']['protocol'] == metrics['other']['protocol']
    assert metrics['one']['test_set'] == metrics['copy']['test_set'] != metrics['other']['test_set']
    assert run('report', *records, '--out', tmp_path / 'report.md') == 0
    tables = [line for line in (tmp_path / 'report.md').read_text().splitlines() if line.startswith('| system')]
    assert len(tables) == 2


@pytest.mark.parametrize('command', ['check-data', 'train'])
def test_a_single_class_is_refused_and_the_fix_in_the_message_works(tmp_path, capsys, command):
    """With id 0 ignored, every other pixel is the class: a model learns nothing, and prediction inverts its ids."""
    write(tmp_path, label=lambda ids: (ids > 2).astype(int))
    options = ['--workers', 1] if command == 'check-data' else ['--work-dir', tmp_path / 'work']
    assert run(command, config_file(tmp_path, PLAIN, classes=('thing',), more='reduce_zero_label=True'), *options) == 1
    shown = ''.join(capsys.readouterr()).replace('\n', ' ')
    assert "metainfo.classes=('background', 'thing') and reduce_zero_label=False" in shown
    fixed = config_file(tmp_path, PLAIN, classes=('background', 'thing'), more='reduce_zero_label=False')
    assert run(command, fixed, *options) == 0
    if command == 'train':
        segmentor = rass_mm.load_segmentor(tmp_path / 'work' / 'iter_2.pth', device='cpu')
        assert segmentor.classes == ['background', 'thing']


@pytest.mark.parametrize('reduce', [False, True])
def test_masks_of_0_and_255_are_a_problem_and_a_warning(tmp_path, capsys, warnings, reduce):
    write(tmp_path, label=lambda ids: np.where(ids > 2, 255, 0))
    config = config_file(tmp_path, PLAIN, classes=('background', 'thing'), more=f'reduce_zero_label={reduce}')
    assert run('check-data', config, '--splits', 'train', '--workers', 1, '--json', tmp_path / 'found.json') == 1
    (found,) = json.loads((tmp_path / 'found.json').read_text())['data']
    assert len(found['faults']) == found['problems'] == 1 and 'binary mask' in found['faults'][0]
    assert found['hints'] == []
    if not reduce:
        assert run('train', config, '--work-dir', tmp_path / 'work') == 0
        assert any('without labelled pixels in the' in text and ': 1 of 2 (thing).' in text for text in warnings)


def test_classes_that_are_never_predicted_do_not_raise_a_mean_in_silence(tmp_path, warnings):
    write(tmp_path)
    config = config_file(
        tmp_path,
        PLAIN
        + "val_evaluator = dict(type='IoUMetric', iou_metrics=['mFscore'])\n"
        + 'model = dict(decode_head=dict(dropout_ratio=0))\noptim_wrapper = dict(optimizer=dict(lr=0))\n',
        classes=('a', 'b', 'c', 'd'),
        more='',
    )
    assert (
        run(
            'train', config, '--work-dir', tmp_path / 'work', '--cfg-options', 'default_hooks.checkpoint.save_best=None'
        )
        == 0
    )
    assert any('Classes without labelled pixels' in message and '(d)' in message for message in warnings)


def test_images_without_labels_are_predicted_but_not_scored(tmp_path, capsys):
    write(tmp_path)
    config = config_file(tmp_path, PLAIN, classes=('a', 'b', 'c'), more='')
    assert run('train', config, '--work-dir', tmp_path / 'work') == 0
    checkpoint, prefix = tmp_path / 'work' / 'iter_2.pth', 'test_dataloader.dataset.data_prefix.seg_map_path'
    test = ['test', config, checkpoint, '--work-dir', tmp_path / 'test', '--out', tmp_path / 'maps', '--cfg-options']
    assert run(*test, f'{prefix}=None', 'test_evaluator.format_only=True') == 0
    assert len(list((tmp_path / 'maps').glob('*.png'))) == 2
    for options, said in (([f'{prefix}=None'], 'has no labels'), ([f'{prefix}=nowhere'], 'nowhere does not exist')):
        assert run(*test, *options) == 1
        assert said in capsys.readouterr().err
    assert run('train', config, '--cfg-options', 'train_dataloader.dataset.data_prefix.seg_map_path=None') == 1
    assert 'train_dataloader.dataset has no labels' in capsys.readouterr().err


def test_the_config_file_is_not_replaced_by_the_copy_in_the_work_dir(tmp_path, capsys):
    write(tmp_path)
    config, work = config_file(tmp_path, PLAIN, classes=('a', 'b', 'c'), more=''), tmp_path / 'work'
    text = (tmp_path / 'own.py').read_text()
    assert run('train', config, '--work-dir', tmp_path) == 1
    assert 'which is your config file. Choose another --work-dir.' in capsys.readouterr().err
    assert (tmp_path / 'own.py').read_text() == text
    for file in (config, work / 'own.py'):  # the copy that the first run wrote may be replaced
        assert run('train', file, '--work-dir', work) == 0
