"""Small tables from results, and the metric rows that come without a model."""

from collections.abc import Sequence

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


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; the first column left, the others right."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            str(cell).ljust(w) if i == 0 else str(cell).rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return '| ' + ' | '.join(padded) + ' |'

    rule = '|' + '|'.join('-' * (w + 2) if i == 0 else '-' * (w + 1) + ':' for i, w in enumerate(widths)) + '|'
    return '\n'.join([line(header), rule, *(line(row) for row in rows)]) + '\n'
