"""`check-data` and `tools/test.py` on RealLQ: both layouts are accepted and give the same results."""

import json

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image
from reallq_layouts import ADE, DETECTRON2, NAMES, write_images, write_labels

from rass_mm.config import load_config
from rass_mm_cli.main import main, run_command

CONFIG = 'baselines/segformer_b0_dt_reallq.py'
PUBLISHED = ['test_evaluator.type=MeanIoUMetric', 'test_evaluator.mean_over=present']
LAYOUTS = {DETECTRON2: False, ADE: True}


def options(root, *more):
    loader = 'test_dataloader'
    small = [
        f'{loader}.dataset.pipeline.1.scale=(128,64)',
        f'{loader}.num_workers=0',
        f'{loader}.persistent_workers=False',
    ]
    return ['--cfg-options', f'{loader}.dataset.data_root={root}', *small, *more]


def run_test(root, checkpoint, work, *more, out=()):
    """Returns the record of `tools/test.py`."""
    arguments = [CONFIG, checkpoint, '--work-dir', work, *out, *options(root, *more)]
    assert run_command('test', [str(argument) for argument in arguments]) == 0
    return json.loads((work / 'metrics.json').read_text())


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """SegFormer-B0 with random weights that predict many classes."""
    torch.manual_seed(0)
    init_default_scope('mmseg')
    model = MODELS.build({**load_config(CONFIG).model, 'pretrained': None})
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=1.0)
    path = tmp_path_factory.mktemp('model') / 'random.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return path


@pytest.fixture(scope='module')
def roots(checkpoint, tmp_path_factory):
    """Layout -> data root with the model's predictions as labels, a quarter of the pixels changed; and these labels."""
    folder = tmp_path_factory.mktemp('reallq')
    places = {prefix: folder / prefix.partition('/')[0] / 'RealLQ' for prefix in LAYOUTS}
    for root in places.values():
        write_images(root)
    blank = {name: np.zeros((60, 80), np.uint8) for name in NAMES}
    write_labels(places[ADE], 'unknown', blank, True)
    unknown = 'test_dataloader.dataset.data_prefix.seg_map_path=unknown'
    rule = 'test_dataloader.dataset.reduce_zero_label=False'
    run_test(places[ADE], checkpoint, folder / 'work', unknown, rule, out=('--out', folder / 'maps'))
    rng, labels = np.random.default_rng(0), {}
    for name in NAMES:
        found = np.asarray(Image.open(folder / 'maps' / f'{name}.png'))
        other = np.where(rng.random(found.shape) < 0.25, (found + 1) % 150, found).astype(np.uint8)
        other[:6] = 255
        labels[name] = other
    for prefix, shifted in LAYOUTS.items():
        write_labels(places[prefix], prefix, labels, shifted)
    return places, labels, folder / 'maps'


def formula(labels, maps):
    """Computes the mIoU in per cent over labelled classes and over all classes that occur."""
    label = np.stack([labels[name] for name in NAMES])
    guess = np.stack([np.asarray(Image.open(maps / f'{name}.png')) for name in NAMES])
    kept = label != 255
    label, guess = label[kept], guess[kept]
    ious = {k: np.sum((label == k) & (guess == k)) / np.sum((label == k) | (guess == k)) for k in {*label, *guess}}
    return 100 * np.mean([ious[k] for k in set(label)]), 100 * np.mean([*ious.values()]), len(set(label))


def test_both_layouts_give_the_same_miou(roots, checkpoint, tmp_path):
    places, labels, maps = roots
    present, every, classes = formula(labels, maps)
    assert classes > 4 and 30 < present < 90
    found = {prefix: run_test(places[prefix], checkpoint, tmp_path / prefix[:12], *PUBLISHED) for prefix in LAYOUTS}
    assert (
        found[DETECTRON2]['metrics'] == found[ADE]['metrics']
        and found[DETECTRON2]['protocol'] == found[ADE]['protocol']
    )
    record = found[DETECTRON2]
    assert record['metrics']['mIoU'] == pytest.approx(present, abs=1e-9) and record['metrics']['classes'] == classes
    assert 'mIoU over classes with labelled pixels, at' in record['protocol'] and record['images'] == 4
    mmsegs = run_test(places[DETECTRON2], checkpoint, tmp_path / 'mmseg')
    assert mmsegs['metrics']['mIoU'] == pytest.approx(every, abs=0.0051) and 'classes' not in mmsegs['metrics']
    assert 'mIoU over classes with labelled or predicted pixels, at' in mmsegs['protocol']


def test_the_other_layouts_rule_would_give_another_number(roots, checkpoint, tmp_path):
    places, labels, maps = roots
    wrong = run_test(places[DETECTRON2], checkpoint, tmp_path, 'test_dataloader.dataset.reduce_zero_label=True')
    assert wrong['metrics']['mIoU'] < formula(labels, maps)[1] / 2


@pytest.mark.parametrize('prefix', LAYOUTS)
def test_check_data_reads_both(roots, prefix, capsys):
    places, labels, _ = roots
    assert main(['check-data', CONFIG, '--splits', 'test', '--workers', '1', *options(places[prefix])]) == 0
    shown = capsys.readouterr().out
    assert f'labels: {places[prefix]}/{prefix}, reduce_zero_label={LAYOUTS[prefix]}' in shown and 'Hint' not in shown
    ignored = np.mean([label == 255 for label in labels.values()])
    assert f'{100 * ignored:.2f}' in shown and 'No problems' in shown


def test_without_labels_both_commands_say_where_they_looked(checkpoint, tmp_path, capsys):
    write_images(tmp_path)
    assert main(['check-data', CONFIG, '--splits', 'test', '--workers', '1', *options(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert run_command('test', [CONFIG, str(checkpoint), '--work-dir', str(tmp_path / 'work'), *options(tmp_path)]) == 1
    error = capsys.readouterr().err
    for prefix in LAYOUTS:
        assert f'{tmp_path}/{prefix} (ids' in shown and f'{tmp_path}/{prefix} (ids' in error
    assert 'Traceback' not in error and 'set data_root' in error
