"""mmseg's IoU metric with a choice of the classes in its means, and with its values per class."""

from typing import Any

import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from rass_mm.errors import ConfigError
from rass_mm.metrics.iou import MEAN_OVER


@METRICS.register_module()
class MeanIoUMetric(IoUMetric):
    """`IoUMetric` with a choice of the classes that its means are over.

    Under 'present', means are not rounded, and the metrics have one more entry, `classes`: the number of classes in
    the means.

    Args:
        mean_over: 'all', mmseg's rule: every class with labelled or predicted pixels, so that a class that is only
            predicted has IoU 0. 'present', the rule of detectron2's `SemSegEvaluator`: every class with labelled
            pixels. Pixels predicted as another class count in the unions of the labelled classes under both rules.
        kwargs: mmseg's own arguments.

    Raises:
        ConfigError: `mean_over` is neither.
    """

    def __init__(self, mean_over: str = 'all', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mean_over not in MEAN_OVER:
            raise ConfigError(f'mean_over is {mean_over!r}; it must be one of {", ".join(map(repr, MEAN_OVER))}.')
        self.mean_over = mean_over

    def compute_metrics(self, results: list[tuple]) -> dict[str, Any]:
        """mmseg's metrics; under 'present' with its means replaced, and `classes`."""
        metrics = super().compute_metrics(results)
        if self.format_only or self.mean_over == 'all':
            return metrics
        values = self.class_values(results)
        means = {name if name == 'aAcc' else f'm{name}': 100 * float(np.nanmean(v)) for name, v in values.items()}
        return {**metrics, **means, 'classes': int(np.count_nonzero(_labelled(results)))}

    def class_values(self, results: list[tuple]) -> dict[str, np.ndarray]:
        """Values of each class, (K,) in 0..1, by mmseg's names (`IoU`, `Acc`), and `aAcc`; NaN outside the means.

        Args:
            results: of all images, four (K,) pixel counts per class each: intersection, union, prediction, label.
        """
        areas = [_total(parts) for parts in zip(*results, strict=True)]
        values = self.total_area_to_metrics(*areas, metrics=self.metrics, nan_to_num=self.nan_to_num, beta=self.beta)
        if self.mean_over == 'all':
            return values
        counted = _labelled(results)
        return {name: np.where(counted, value, np.nan) if value.ndim else value for name, value in values.items()}


@METRICS.register_module()
class PerClassIoUMetric(MeanIoUMetric):
    """`MeanIoUMetric` with one more entry, `IoU`: per cent per class, None for a class outside the mean."""

    def compute_metrics(self, results: list[tuple]) -> dict[str, Any]:
        """The metrics and `IoU`, from the same totals over all images."""
        values = self.class_values(results)['IoU']
        per_class = [None if np.isnan(value) else round(100 * float(value), 4) for value in values]
        return {**super().compute_metrics(results), 'IoU': per_class}


def _total(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Sum over images in float64, because float32, as mmseg counts, holds no more than 2^24 pixels exactly."""
    return torch.stack(parts).double().sum(0)


def _labelled(results: list[tuple]) -> np.ndarray:
    """(K,) whether a class has labelled pixels."""
    return (_total([areas[3] for areas in results]) > 0).numpy()
