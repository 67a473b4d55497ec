"""Intersection over union from pixel counts."""

import numpy as np

MEAN_OVER = {'all': 'classes with labelled or predicted pixels', 'present': 'classes with labelled pixels'}
"""Rule of a mean over classes -> the classes in it."""


def mean_iou(confusion: np.ndarray) -> float:
    """Mean over classes that occur (in truth or prediction) of intersection over union.

    Args:
        confusion: (K, K) pixel counts, rows are the truth, columns the prediction.
    """
    return float(np.nanmean(class_ious(confusion)))


def class_ious(confusion: np.ndarray) -> np.ndarray:
    """(K,) intersection over union per class; NaN for classes that occur neither in truth nor in prediction.

    Args:
        confusion: as in `mean_iou`.
    """
    intersection = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return np.where(union > 0, intersection / np.maximum(union, 1), np.nan)
