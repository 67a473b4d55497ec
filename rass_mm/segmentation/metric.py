"""mmseg's IoU metric with a choice of the classes that its means include, and with values per class."""

from typing import Any

import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from rass_mm.errors import ConfigError
from rass_mm.metrics.iou import MEAN_OVER


@METRICS.register_module()
class MeanIoUMetric(IoUMetric):
    """`IoUMetric` with a choice of the classes that its means include.

    With `mean_over='present'`, the means are not rounded, and the metrics have an additional entry `classes`: the
    number of classes in the means.

    Args:
        mean_over: the classes that the means include. 'all', the rule of mmseg, includes every class with labelled or
            predicted pixels, so a class that is only predicted has an IoU of 0. 'present', the rule of detectron2's
            `SemSegEvaluator`, includes every class with labelled pixels. With both rules, the union of a class contains
            all of its labelled pixels, even if they are predicted as a class that the means exclude.
        kwargs: further arguments of `IoUMetric`.

    Raises:
        ConfigError: `mean_over` is neither 'all' nor 'present'.
    """

    def __init__(self, mean_over: str = 'all', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mean_over not in MEAN_OVER:
            raise ConfigError(f'mean_over is {mean_over!r}; it must be one of {", ".join(map(repr, MEAN_OVER))}.')
        self.mean_over = mean_over

    def compute_metrics(self, results: list[tuple]) -> dict[str, Any]:
        """Computes mmseg's metrics. With `mean_over='present'`, replaces the means and adds `classes`."""
        metrics = super().compute_metrics(results)
        if self.format_only or self.mean_over == 'all':
            return metrics
        values = self.class_values(results)
        means = {name if name == 'aAcc' else f'm{name}': 100 * float(np.nanmean(v)) for name, v in values.items()}
        return {**metrics, **means, 'classes': int(np.count_nonzero(_labelled(results)))}

    def class_values(self, results: list[tuple]) -> dict[str, np.ndarray]:
        """Computes the metrics of each class in [0, 1].

        Args:
            results: for each image, four (K,) tensors of pixel counts: intersection, union, prediction, label.

        Returns:
            One (K,) array for each of mmseg's names (e.g. `IoU` and `Acc`), and the scalar `aAcc`. The values of
            classes that are excluded from the mean are NaN.
        """
        areas = [_total(parts) for parts in zip(*results, strict=True)]
        values = self.total_area_to_metrics(*areas, metrics=self.metrics, nan_to_num=self.nan_to_num, beta=self.beta)
        if self.mean_over == 'all':
            return values
        counted = _labelled(results)
        return {name: np.where(counted, value, np.nan) if value.ndim else value for name, value in values.items()}


@METRICS.register_module()
class PerClassIoUMetric(MeanIoUMetric):
    """`MeanIoUMetric` with an additional entry `IoU`: IoU of each class in percent, None if excluded from the mean."""

    def compute_metrics(self, results: list[tuple]) -> dict[str, Any]:
        """Computes the metrics and `IoU` from the same totals over all images."""
        values = self.class_values(results)['IoU']
        per_class = [None if np.isnan(value) else round(100 * float(value), 4) for value in values]
        return {**super().compute_metrics(results), 'IoU': per_class}


def _total(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Sums over images in float64, because float32, which mmseg uses, is exact only up to 2^24 pixels."""
    return torch.stack(parts).double().sum(0)


def _labelled(results: list[tuple]) -> np.ndarray:
    """Returns a (K,) boolean array that is True for classes with labelled pixels."""
    return (_total([areas[3] for areas in results]) > 0).numpy()
