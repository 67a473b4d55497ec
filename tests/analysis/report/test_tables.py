"""Tables, the majority row and the picture of the demo."""

import json

import cv2
import numpy as np
import torch
from mmseg.evaluation import IoUMetric

from rass_mm.analysis.report.tables import markdown_table
from rass_mm.datasets.scenes import PALETTE, SCENE_CLASSES
from rass_mm.demo.base.shipped import shipped_record
from rass_mm.demo.costs import Costs
from rass_mm.demo.settings import DemoSettings
from rass_mm.demo.steps import BASELINE, LONGER, RASS, RASS_SCR, SCR, SPLITS, SYSTEMS
from rass_mm.demo.table import demo_table, majority_miou
from rass_mm.metrics.iou import mean_iou
from rass_mm.visualization import colored, comparison_page, heated


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


def test_table_of_the_demo_says_its_scores_costs_and_recipe_version(scenes, tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'scenes').symlink_to(scenes)
    names = {f'{system.stem}-{split}': {'mIoU': 12.345} for system in SYSTEMS for split in SPLITS}
    figures = dict.fromkeys(('PSNR', 'SSIM', 'input_PSNR', 'input_SSIM', 'attention_ratio', 'attention_chance'), 0.5)
    names |= {f'{SCR.stem}-{mode}': figures for mode in ('restore', 'ceiling')}
    for name, metrics in names.items():
        (tmp_path / 'tests' / name).mkdir(parents=True)
        (tmp_path / 'tests' / name / 'metrics.json').write_text(json.dumps({'metrics': metrics}))
    costs = Costs(tmp_path)
    for seconds, system in enumerate((SCR, BASELINE, RASS, RASS_SCR, LONGER), 1111):
        costs.begin(system.stem)
        costs.end(system.stem, seconds)
    costs.begin(RASS.stem)
    text = demo_table(tmp_path, DemoSettings(seed=3))
    assert 'degraded by recipe version 2;' in text and text.count('12.3') == len(SYSTEMS) * len(SPLITS)
    rows = {
        cells[1]: cells[2:4] for line in text.splitlines() if len(cells := [c.strip() for c in line.split('|')]) > 6
    }
    assert rows['RASS with SCR'] == ['300 + 500', '1111 + 1114'] and rows['RASS, no SCR'] == ['500', '>1113']
    record = shipped_record()
    assert 'seed 3' in text and all(command in text for command in record['commands'])
    assert f'took 2225 CPU seconds, {2225 + record["seconds"]} with the base, the ResNet 1112' in text
    assert rows['baseline (ResNet), longer'] == ['3000', '1115'] and 'the longer ResNet 1115' in text


def test_table_is_markdown():
    lines = markdown_table(['system', 'mIoU'], [['one', '1.00'], ['another', '12.34']]).splitlines()
    assert lines == ['| system  |  mIoU |', '|---------|------:|', '| one     |  1.00 |', '| another | 12.34 |']


def test_page_shows_each_picture_twice_as_large_in_its_column(tmp_path):
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (96, 96, 3), np.uint8) for _ in range(2))
    truth = colored(np.full((96, 96), 3), PALETTE)
    rows = [[first, second, truth], [second, first, truth]]
    comparison_page(tmp_path / 'page.png', ['one', 'two', 'truth'], rows, SCENE_CLASSES, PALETTE)
    page = cv2.imread(str(tmp_path / 'page.png'))
    side = 2 * 96 + 6
    assert page.shape[1] == 3 * side
    upper, lower = page[24 : 24 + side], page[24 + side : 24 + 2 * side]
    assert np.array_equal(upper[:, :side], lower[:, side : 2 * side])
    assert np.array_equal(upper[3 : side - 3, 3 : side - 3][::2, ::2], first)
    assert tuple(upper[50, 2 * side + 50][::-1]) == PALETTE[3]


def test_heat_is_brightest_where_the_map_is_largest():
    heat = np.zeros((32, 32), np.float32)
    heat[4, 5] = 0.02  # scaled to its own maximum
    shown = heated(np.full((32, 32, 3), 100, np.uint8), heat).astype(int).sum(-1)
    assert np.unravel_index(shown.argmax(), shown.shape) == (4, 5) and (shown != shown[4, 5]).sum() == 32 * 32 - 1
