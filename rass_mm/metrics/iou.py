"""Intersection over union, computed from a confusion matrix."""

import numpy as np

MEAN_OVER = {'all': 'classes with labelled or predicted pixels', 'present': 'classes with labelled pixels'}
"""Maps the name of each rule for the mean over classes to a description of the classes that it includes."""


def mean_iou(confusion: np.ndarray) -> float:
    """Computes the mean intersection over union of the classes that occur in the truth or the prediction.

    Args:
        confusion: (K, K) pixel counts for K classes. Rows are the truth, columns are the prediction.

    Returns:
        A value in [0, 1], or NaN if no class occurs.
    """
    return float(np.nanmean(class_ious(confusion)))


def class_ious(confusion: np.ndarray) -> np.ndarray:
    """Computes the intersection over union of each class.

    Args:
        confusion: (K, K) pixel counts for K classes. Rows are the truth, columns are the prediction.

    Returns:
        (K,) values in [0, 1]. They are NaN for classes that occur neither in the truth nor in the prediction.
    """
    intersection = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return np.where(union > 0, intersection / np.maximum(union, 1), np.nan)
