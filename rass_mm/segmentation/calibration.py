"""Metric for the calibration of a segmentor: how well its confidence predicts its accuracy."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS
from torch import Tensor

from rass_mm.errors import ConfigError
from rass_mm.labelling.confidence import confidence

BINS = 15


@METRICS.register_module()
class CalibrationMetric(BaseMetric):
    """Expected calibration error (ECE) over all labelled pixels, with mean confidence and accuracy, in percent.

    Pixels are grouped by confidence into bins of equal width. ECE is the mean over pixels of the absolute difference
    between the mean confidence and the accuracy of a pixel's bin (Guo et al., *On Calibration of Modern Neural
    Networks*, ICML 2017, equation 3).

    Args:
        ignore_index: label of the pixels to exclude.
        bins: number of bins.
        kwargs: further arguments of `mmengine.evaluator.BaseMetric`.
    """

    default_prefix = None

    def __init__(self, ignore_index: int = 255, bins: int = BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_index, self.bins = ignore_index, bins

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Computes the totals of each bin for each image of a batch and stores them.

        Raises:
            ConfigError: a prediction has no logits.
        """
        for sample in data_samples:
            if 'seg_logits' not in sample:
                raise ConfigError(
                    'CalibrationMetric needs the logits of the predictions, but the segmentor returned none. '
                    'Set model.test_cfg.keep_logits=True.'
                )
            predicted = sample['pred_sem_seg']['data'].squeeze(0)
            truth = sample['gt_sem_seg']['data'].squeeze(0).to(predicted)
            counted = truth != self.ignore_index
            self.results.append(
                self._totals(confidence(sample['seg_logits']['data'])[counted], (predicted == truth)[counted])
            )

    def _totals(self, confidences: Tensor, correct: Tensor) -> Tensor:
        """Returns (3, bins) float64: the pixels, the sum of their confidences and the correct pixels of each bin."""
        confidences, correct = confidences.double(), correct.double()
        index = (confidences * self.bins).long().clamp(max=self.bins - 1)
        rows = []
        for number in range(self.bins):  # sums on the device, and deterministic on any
            inside = (index == number).double()
            rows.append(torch.stack([inside.sum(), (inside * confidences).sum(), (inside * correct).sum()]))
        return torch.stack(rows, 1).cpu()

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """Computes `ECE`, `confidence` and `accuracy` in percent from the totals of all images."""
        pixels, confident, correct = torch.stack(results).sum(0)
        total = pixels.sum().clamp(min=1)
        return {
            'ECE': 100 * float((confident - correct).abs().sum() / total),
            'confidence': 100 * float(confident.sum() / total),
            'accuracy': 100 * float(correct.sum() / total),
        }
