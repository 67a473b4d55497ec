"""mmseg's IoU with its values per class handed on, which mmseg only prints."""

from typing import Any

import numpy as np
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS


@METRICS.register_module()
class PerClassIoUMetric(IoUMetric):
    """`IoUMetric` whose metrics have one more entry, `IoU`: per cent per class, None for a class that never occurs."""

    def compute_metrics(self, results: list[tuple]) -> dict[str, Any]:
        """mmseg's metrics and `IoU`, from the same totals over all images."""
        areas = [sum(parts) for parts in zip(*results, strict=True)]
        values = self.total_area_to_metrics(*areas, metrics=['mIoU'], nan_to_num=self.nan_to_num)['IoU']
        per_class = [None if np.isnan(value) else round(100 * float(value), 4) for value in values]
        return {**super().compute_metrics(results), 'IoU': per_class}
