"""Warnings about classes that a mean hides, compared with the classes for which mmseg's metric is NaN."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from rass_mm.segmentation import labelled_classes
from rass_mm.segmentation.labelled_classes import LabelledClassesHook

NAMES = ['road', 'car', 'tree', 'sky']


def sample(label, predicted):
    parts = {'gt_sem_seg': label, 'pred_sem_seg': predicted}
    return SegDataSample(**{key: PixelData(data=torch.tensor([value])) for key, value in parts.items()})


def warned(monkeypatch, label, predicted, metrics):
    found = []
    monkeypatch.setattr(labelled_classes, 'print_log', lambda text, *_: found.append(text))
    hook, runner = LabelledClassesHook(), SimpleNamespace()
    runner.val_dataloader = SimpleNamespace(dataset=SimpleNamespace(metainfo={'classes': NAMES}))
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, None, [sample(label, predicted)])
    hook.after_val_epoch(runner, metrics)
    return ' '.join(found)


CASES = {
    'never correct': ([[0, 1, 2, 3]], [[0, 2, 1, 3]], {'car', 'tree'}),
    'never predicted': ([[0, 1, 2, 3]], [[0, 0, 2, 3]], {'car'}),
    'only where ignored': ([[0, 1, 255, 3, 2]], [[0, 0, 1, 3, 2]], {'car'}),
    'all correct': ([[0, 1, 2, 3]], [[0, 1, 2, 3]], set()),
}


@pytest.mark.parametrize('case', CASES)
def test_every_class_whose_f_score_is_nan_is_named(monkeypatch, case):
    label, predicted, hidden = CASES[case]
    areas = IoUMetric.intersect_and_union(torch.tensor(predicted), torch.tensor(label), len(NAMES), 255)
    scores = IoUMetric.total_area_to_metrics(*areas, metrics=['mFscore'])['Fscore']
    assert {name for name, score in zip(NAMES, scores, strict=True) if np.isnan(score)} == hidden
    text = warned(monkeypatch, label, predicted, {'f/mFscore': 1.0})
    assert {name for name in NAMES if name in text} == hidden
    assert warned(monkeypatch, label, predicted, {'mIoU': 1.0}) == ''
