"""Mean IoU over the classes with labelled pixels, against a confusion matrix in float64 and mmseg's own metric."""

import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from rass_mm.errors import ConfigError
from rass_mm.metrics.iou import mean_iou
from rass_mm.segmentation.metric import MeanIoUMetric, PerClassIoUMetric

CLASSES, PRESENT, IMAGES = 150, 60, 5


def maps(present=PRESENT, seed=0):
    """(label, prediction) per image, (48, 64): labels of `present` of the 150 classes and 255, guesses into all 150."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(CLASSES)[:present]
    pairs = []
    for _ in range(IMAGES):
        label = rng.choice(classes, (48, 64))
        guess = np.where(rng.random(label.shape) < 0.7, label, rng.integers(0, CLASSES, label.shape))
        label[:3] = 255
        pairs.append((label, guess))
    return pairs


def confusion_of(pairs):
    """(150, 150) pixel counts in float64, rows are labels; ignored pixels are left out."""
    confusion = np.zeros((CLASSES, CLASSES))
    for label, guess in pairs:
        kept = label != 255
        np.add.at(confusion, (label[kept], guess[kept]), 1)
    return confusion


def fed(metric, pairs):
    metric.dataset_meta = {'classes': [str(k) for k in range(CLASSES)]}
    for label, guess in pairs:
        sample = {
            'pred_sem_seg': {'data': torch.tensor(guess)[None]},
            'gt_sem_seg': {'data': torch.tensor(label)[None]},
        }
        metric.process({}, [sample])
    return metric


def measured(pairs, kind=MeanIoUMetric, **options):
    return fed(kind(**options), pairs).evaluate(len(pairs))


def formula(confusion):
    """mIoU over labelled classes and over all that occur, and mAcc over labelled classes, in per cent."""
    true, labelled, guessed = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    union = labelled + guessed - true
    rows = labelled > 0
    present, every = true[rows] / union[rows], true[union > 0] / union[union > 0]
    return 100 * present.mean(), 100 * every.mean(), 100 * (true[rows] / labelled[rows]).mean()


def test_classes_without_labelled_pixels_do_not_count():
    pairs = maps()
    confusion = confusion_of(pairs)
    present, every, accuracy = formula(confusion)
    assert present > 2.4 * every  # all 90 other classes are predicted somewhere
    found = measured(pairs, mean_over='present')
    assert found['mIoU'] == pytest.approx(present, abs=1e-9) and found['mAcc'] == pytest.approx(accuracy, abs=1e-9)
    assert found['classes'] == PRESENT
    assert found['aAcc'] == pytest.approx(100 * np.trace(confusion) / confusion.sum(), abs=1e-9)
    assert 100 * mean_iou(confusion) == pytest.approx(every, abs=1e-9)
    mmseg = measured(pairs, IoUMetric)
    assert mmseg['mIoU'] == pytest.approx(every, abs=0.0051)  # rounded to two digits
    assert measured(pairs) == measured(pairs, mean_over='all') == mmseg


def test_pixels_predicted_as_a_class_without_labels_are_errors_of_their_own_class():
    label, guess = np.zeros((2, 10, 10), np.int64)
    guess[:3] = 7  # a class that no label has
    found = measured([(label, guess)], mean_over='present')
    assert (found['mIoU'], found['mAcc'], found['classes']) == (pytest.approx(70), pytest.approx(70), 1)
    label[5:], guess[:3] = 1, 1  # the same pixels in the union of a class that some labels have
    found = measured([(label, guess)], mean_over='present')
    assert found['mIoU'] == pytest.approx(100 * (2 / 10 + 0 / 8) / 2) and found['classes'] == 2


def test_where_all_classes_have_labels_both_rules_agree():
    pairs = maps(present=CLASSES)
    present, every, _ = formula(confusion_of(pairs))
    assert present == every
    mmseg, found = measured(pairs, IoUMetric), measured(pairs, mean_over='present')
    assert found.pop('classes') == CLASSES
    assert found == pytest.approx(mmseg, abs=0.0051)


@pytest.mark.parametrize('ignored', [255, 0])
def test_ignored_pixels_count_nowhere(ignored):
    pairs = [(np.where(label == 255, ignored, label), guess) for label, guess in maps()]
    moved = [(np.where(label == ignored, 255, label), guess) for label, guess in pairs]
    other = [(label, np.where(label == 255, 3, guess)) for label, guess in moved]
    expected = formula(confusion_of(moved))[0]
    assert measured(pairs, mean_over='present', ignore_index=ignored)['mIoU'] == pytest.approx(expected, abs=1e-9)
    assert measured(other, mean_over='present')['mIoU'] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('metric', ['mDice', 'mFscore'])
def test_other_means_follow_the_rule_too(metric):
    pairs = maps()
    confusion = confusion_of(pairs)
    rows = confusion.sum(1) > 0
    dice = 100 * (2 * np.diag(confusion) / (confusion.sum(0) + confusion.sum(1)))[rows].mean()
    found = measured(pairs, mean_over='present', iou_metrics=[metric])
    assert found[metric] == pytest.approx(dice, abs=1e-4)  # mmseg's F-score is float32


def test_counts_beyond_the_integers_of_float32_are_exact():
    large = torch.zeros(CLASSES)
    large[:2] = torch.tensor([2.0**24, 3.0])
    areas = (large, large, large, large)
    one = tuple(torch.ones(CLASSES) for _ in range(4))
    intersection_less = (torch.zeros(CLASSES), *one[1:])
    metric = fed(MeanIoUMetric(mean_over='present'), [])
    metric.results = [areas, *[intersection_less] * 3]
    expected = np.mean([2**24 / (2**24 + 3), 3 / 6, *[0] * 148])
    assert metric.evaluate(4)['mIoU'] == pytest.approx(100 * expected, abs=1e-9)


def in_process(rank, store, pairs, queue):
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    own = [*pairs, pairs[0]][rank::2]  # the sampler repeats an image where the last batch is not full
    queue.put((rank, fed(MeanIoUMetric(mean_over='present'), own).evaluate(len(pairs))))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path):
    pairs, context = maps(), multiprocessing.get_context('fork')
    queue = context.Queue()
    workers = [context.Process(target=in_process, args=(r, tmp_path / 'store', pairs, queue)) for r in range(2)]
    for worker in workers:
        worker.start()
    found = dict(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert found[0] == found[1] == measured(pairs, mean_over='present')


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="'labelled'; it must be one of 'all', 'present'"):
        METRICS.build({'type': 'MeanIoUMetric', 'mean_over': 'labelled'})


def test_format_only_measures_nothing(tmp_path):
    metric = MeanIoUMetric(mean_over='present', format_only=True, output_dir=str(tmp_path))
    metric.dataset_meta = {'classes': ['a', 'b']}
    guess = torch.ones(1, 4, 4, dtype=torch.long)
    metric.process({}, [{'pred_sem_seg': {'data': guess}, 'img_path': 'one.jpg'}])
    metric.results = [None]
    assert metric.evaluate(1) == {} and (tmp_path / 'one.png').exists()


def test_values_per_class_under_both_rules():
    pairs = maps()
    confusion = confusion_of(pairs)
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    for rule in ('all', 'present'):
        found = measured(pairs, PerClassIoUMetric, mean_over=rule)
        values = found.pop('IoU')
        counted = confusion.sum(1) > 0 if rule == 'present' else union > 0
        assert [value is not None for value in values] == counted.tolist()
        kept = [value for value in values if value is not None]
        assert kept == pytest.approx(100 * (np.diag(confusion) / union)[counted], abs=1e-4)
        assert found == measured(pairs, mean_over=rule)


def test_values_per_class_are_those_that_mmseg_prints():
    rng = np.random.default_rng(0)
    names = ('sky', 'car', 'never')
    truth, guess = rng.integers(0, 2, (2, 3, 20, 30))
    truth[0, :5] = 255
    plain, ours = IoUMetric(), PerClassIoUMetric()
    for metric in (plain, ours):
        metric.dataset_meta = {'classes': names}
        for one, other in zip(truth, guess, strict=True):
            sample = {'pred_sem_seg': {'data': torch.tensor(other)[None]}}
            metric.process({}, [{**sample, 'gt_sem_seg': {'data': torch.tensor(one)[None]}}])
    expected, metrics = plain.evaluate(3), ours.evaluate(3)
    values = metrics.pop('IoU')
    assert metrics == expected and values[2] is None
    valid = truth != 255
    for index in (0, 1):
        both = ((truth == index) & (guess == index))[valid].sum()
        either = ((truth == index) | (guess == index))[valid].sum()
        assert values[index] == pytest.approx(100 * both / either, abs=1e-3)
