"""Tables, the majority row and the picture of the demo."""

import cv2
import numpy as np
import torch
from mmseg.evaluation import IoUMetric

from rass_mm.embedded.demo import majority_miou
from rass_mm.embedded.pictures import colored, comparison_page
from rass_mm.embedded.scenes import PALETTE
from rass_mm.evaluation.tables import markdown_table, mean_iou


def test_mean_iou_equals_mmsegs():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 5, (2, 40, 50))
    confusion = np.bincount(truth.ravel() * 5 + prediction.ravel(), minlength=25).reshape(5, 5)
    areas = IoUMetric.intersect_and_union(torch.from_numpy(prediction), torch.from_numpy(truth), 5, 255)
    expected = (areas[0] / areas[1]).mean().item()
    assert abs(mean_iou(confusion) - expected) < 1e-6


def test_mean_iou_leaves_out_classes_that_do_not_occur():
    assert mean_iou(np.diag([5, 0, 3])) == 1.0


def test_majority_row_counts_the_validation_labels(scenes):
    labels = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in (scenes / 'ann_dir' / 'val').glob('*.png')]
    train = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in (scenes / 'ann_dir' / 'train').glob('*.png')]
    majority = np.bincount(np.stack(train).ravel()).argmax()
    share = (np.stack(labels) == majority).mean()
    classes = len(np.unique(np.stack(labels)))
    assert abs(majority_miou(scenes) - share / classes) < 1e-9


def test_table_is_markdown():
    lines = markdown_table(['system', 'mIoU'], [['one', '1.00'], ['another', '12.34']]).splitlines()
    assert lines == ['| system  |  mIoU |', '|---------|------:|', '| one     |  1.00 |', '| another | 12.34 |']


def test_picture_shows_the_truth_in_its_colours(scenes, tmp_path):
    truth = scenes / 'ann_dir' / 'val'
    comparison_page(tmp_path / 'page.png', scenes, {'itself': truth}, count=2)
    page = cv2.imread(str(tmp_path / 'page.png'))
    height = 2 * 96 + 6
    assert page.shape[1] == 4 * height
    predicted, shown = page[24 : 24 + height, height : 2 * height], page[24 : 24 + height, 2 * height : 3 * height]
    assert np.array_equal(predicted, shown)
    assert tuple(colored(np.array([[3]]))[0, 0][::-1]) == PALETTE[3]
