"""Intervals and p-values of differences in pooled mIoU, over seeds and images, and their correction for many questions.

A difference of two systems is the mean over the seeds of `mIoU(better) - mIoU(worse)`, both over all pixels. Both the
training (seed) and the validation images are samples, so the variance of the mean has two parts, those of a
hierarchical bootstrap over seeds and images:

* seeds: resampling n numbers has a closed form; with the factor n / (n - 1), without which the variance of three seeds
  is a third too small, it is s^2 / n.
* images: resampled with replacement, the same ones for both systems and for all seeds, because all are tested on the
  same images. Frames of a video are resampled in blocks of consecutive frames, because neighbours resemble each other.
  The variance of the resamples has the factor B / (B - 1) for B images or blocks, for the same reason.

The interval is Student's with the degrees of freedom of Welch and Satterthwaite for the sum of the two parts.
Percentiles of the resamples are not used: for three seeds, they cover the true mean in about 75 % of cases, not 95 %.
Interactions of seeds and images are in both parts, so the interval is rather too wide than too narrow.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.counts import ARRAYS, Counts, ious
from rass_mm.errors import DataError

LEVEL = 0.05
RESAMPLES = 2000
BLOCK = 10
"""Consecutive frames of a drive of CamVid in one block; the labelled frames are about a second apart."""


class Pair(NamedTuple):
    """Counts of two systems on the same images, with one seed.

    Attributes:
        better: counts of the system that is expected to be better.
        worse: counts of the other system, of the same images in the same order.
    """

    better: Counts
    worse: Counts


class Spread(NamedTuple):
    """Variance of a mean difference that comes from the choice of images.

    Attributes:
        variance: in squared points of mIoU.
        blocks: number of independent images or blocks of frames.
    """

    variance: float
    blocks: int


def image_spread(pairs: Sequence[Pair], blocks: Sequence[int], resamples: int = RESAMPLES) -> Spread:
    """Estimates by bootstrap how much the mean difference over the seeds depends on the choice of images.

    Args:
        pairs: one pair for each seed, all of the same N images.
        blocks: N block numbers; the images of a block are drawn together.
        resamples: number of bootstrap samples; their random numbers have a fixed seed.

    Raises:
        DataError: there is only one block, whose variance is unknown.
    """
    _, block = np.unique(blocks, return_inverse=True)
    count = int(block.max()) + 1
    if count < 2:
        raise DataError(
            f'All {len(blocks)} validation images form one block; an interval requires at least two blocks. '
            'Test on more images.'
        )
    totals = np.zeros((count, len(pairs), len(Pair._fields), len(ARRAYS), pairs[0].better.truth.shape[1]))
    np.add.at(totals, block, np.stack([[c[1:] for c in pair] for pair in pairs]).transpose(3, 0, 1, 2, 4))
    drawn = np.random.default_rng(0).multinomial(count, [1 / count] * count, resamples)
    sums = np.tensordot(drawn, totals, 1)
    scores = 100 * np.nanmean(ious(*np.moveaxis(sums, 3, 0)), -1)  # resamples x seeds x systems
    drawn_variance = float(np.var((scores[..., 0] - scores[..., 1]).mean(1), ddof=1))
    return Spread(drawn_variance * count / (count - 1), count)


def frame_blocks(names: Sequence[str], size: int = BLOCK) -> list[int]:
    """Returns block numbers of frames named `DRIVE_FRAME`: up to `size` consecutive frames of a drive are a block."""
    blocks, place = [0] * len(names), {}
    drives: dict[str, int] = {}
    for number in sorted(range(len(names)), key=lambda number: names[number]):
        drive = names[number].rpartition('_')[0]
        rank = drives[drive] = drives.get(drive, -1) + 1
        blocks[number] = place.setdefault((drive, rank // size), len(place))
    return blocks


def standard_error(differences: Sequence[float], images: Spread | None = None) -> tuple[float, float]:
    """Returns the standard error of the mean of the differences by seed, and its degrees of freedom.

    Args:
        differences: the differences by seed, at least two.
        images: the part of the images; without it, the error is that of the seeds alone.
    """
    seeds = float(np.var(differences, ddof=1)) / len(differences)
    parts = [(seeds, len(differences) - 1), *([(images.variance, images.blocks - 1)] if images else [])]
    total = sum(variance for variance, _ in parts)
    weights = sum(variance**2 / freedom for variance, freedom in parts)
    return math.sqrt(total), (total**2 / weights if weights else math.inf)


def confidence_interval(differences: Sequence[float], images: Spread | None = None) -> tuple[float, float]:
    """Returns the 95 % confidence interval of the mean difference. The arguments are those of `standard_error`."""
    error, freedom = standard_error(differences, images)
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    mean = float(np.mean(differences))
    return mean - half, mean + half


def p_value(differences: Sequence[float], images: Spread | None = None) -> float:
    """Returns the two-sided p-value of a mean difference of zero. The arguments are those of `standard_error`."""
    error, freedom = standard_error(differences, images)
    mean = abs(float(np.mean(differences)))
    if error == 0:
        return 0.0 if mean else 1.0
    return float(2 * stats.t.sf(mean / error, freedom))


def corrected(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values after Benjamini-Hochberg's correction for a family of questions, in the given order."""
    return stats.false_discovery_control(p_values).tolist() if len(p_values) else []
