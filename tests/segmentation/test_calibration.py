"""Confidence and its calibration against NumPy in float64."""

import numpy as np
import pytest
import torch

from rass_mm.errors import ConfigError
from rass_mm.labelling.confidence import confidence
from rass_mm.segmentation.calibration import CalibrationMetric


def sample(logits, truth):
    """A prediction as mmseg passes it to a metric."""
    logits, truth = torch.from_numpy(logits).float(), torch.from_numpy(truth)
    return {
        'seg_logits': {'data': logits},
        'pred_sem_seg': {'data': logits.argmax(0, keepdim=True)},
        'gt_sem_seg': {'data': truth[None]},
    }


def softmax(logits):
    exponentials = np.exp(logits - logits.max(0))
    return exponentials / exponentials.sum(0)


@pytest.mark.parametrize('bins', [1, 7, 15])
def test_error_is_that_of_the_formula(bins):
    rng = np.random.default_rng(0)
    images = []
    for size in ((31, 17), (8, 40)):
        images.append((3 * rng.normal(size=(5, *size)), rng.choice([0, 1, 2, 3, 4, 255], size)))
    metric = CalibrationMetric(bins=bins)
    for logits, truth in images:
        metric.process({}, [sample(logits, truth)])
    found = metric.compute_metrics(metric.results)
    confidences = np.concatenate([softmax(logits).max(0)[t != 255] for logits, t in images])
    correct = np.concatenate([(logits.argmax(0) == t)[t != 255] for logits, t in images])
    error = 0
    for lower in np.arange(bins) / bins:
        inside = (confidences >= lower) & (confidences < lower + 1 / bins)
        if inside.any():
            error += inside.mean() * abs(confidences[inside].mean() - correct[inside].mean())
    assert abs(found['ECE'] - 100 * error) < 1e-4
    assert abs(found['confidence'] - 100 * confidences.mean()) < 1e-4
    assert abs(found['accuracy'] - 100 * correct.mean()) < 1e-9


def test_a_model_that_is_as_often_right_as_it_says_has_no_error():
    logits = np.zeros((2, 10, 10))
    logits[0] = np.log(3)  # confidence 3/4 in class 0
    truth = np.zeros((10, 10), int)
    truth.ravel()[:25] = 1
    metric = CalibrationMetric()
    metric.process({}, [sample(logits, truth)])
    assert metric.compute_metrics(metric.results)['ECE'] < 1e-4


def test_confidence_of_a_single_logit_is_that_of_the_more_likely_class():
    found = confidence(torch.tensor([[[-2.0, 0.0, 3.0]]]))
    assert np.allclose(found, [[1 / (1 + np.exp(-2)), 0.5, 1 / (1 + np.exp(-3))]])


def test_predictions_without_logits_name_the_switch():
    complete = sample(np.zeros((2, 3, 3)), np.zeros((3, 3), int))
    complete.pop('seg_logits')
    with pytest.raises(ConfigError, match='keep_logits'):
        CalibrationMetric().process({}, [complete])
