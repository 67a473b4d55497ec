"""Records grouped by system, and statistics used by tables and plots."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.counts import pooled, pooled_miou, read_counts
from experiments.statistics import LEVEL, Pair, Spread, confidence_interval, frame_blocks, image_spread, p_value
from experiments.store import Record, read_records
from experiments.systems import CAMVID_FOLDS, FIRST, SEEDS, SETTINGS, System, systems_of
from rass_mm.errors import DataError

Value = Callable[[Record], float]
DECIDED = ('yes', 'no, reversed')
NOT_RUN, NOT_RECORDED = 'not run', 'not recorded'
GROUPS = {name: (name,) for name in SETTINGS if name not in CAMVID_FOLDS} | {'camvid_folds': CAMVID_FOLDS}
"""Data sets of the tables, and their settings: the folds of CamVid are pooled."""
TITLES = {
    **SETTINGS,
    'camvid': 'CamVid at half size, 240x180, official validation clip',
    'camvid_folds': 'CamVid at half size, 240x180, folds by time',
}
FAMILIES = {'first': FIRST, 'second': tuple(name for name in GROUPS if name not in FIRST)}
"""Data sets whose questions are corrected together. The pixel counts are used on those of `second` only: on the first
data sets, a row that is run again has counts, its neighbours do not, and their intervals would not be comparable."""


@dataclass(frozen=True)
class Row:
    """Records of one system on one data set, by seed."""

    system: System
    by_seed: dict[int, Record]

    @property
    def first(self) -> Record:
        """Record of the lowest seed, for values that are equal for all seeds."""
        return self.by_seed[min(self.by_seed)]

    def values(self, value: Value) -> list[float]:
        """Returns one number per seed."""
        return [value(self.by_seed[seed]) for seed in sorted(self.by_seed)]


@dataclass(frozen=True)
class Comparison:
    """Differences between two systems, by seed.

    Attributes:
        seeds: the seeds that both systems have.
        differences: one number for each seed.
        images: how much the mean depends on the choice of images; None for records without pixel counts.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    images: Spread | None = None

    @property
    def whole(self) -> bool:
        """Whether all seeds were run."""
        return len(self.differences) == len(SEEDS)

    @property
    def signs(self) -> str:
        """Whether all differences have the same sign, which has a chance probability of 1/4 for three seeds."""
        if not self.whole:
            return f'{len(self.differences)} of {len(SEEDS)} seeds run'
        if all(difference > 0 for difference in self.differences):
            return 'agree'
        return 'agree, reversed' if all(difference < 0 for difference in self.differences) else 'disagree'

    @property
    def p_value(self) -> float | None:
        """P-value of a mean difference of zero, without correction for many questions, or None for a single seed."""
        return p_value(self.differences, self.images) if len(self.differences) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean difference, or None for a single seed."""
        return confidence_interval(self.differences, self.images) if len(self.differences) > 1 else None

    def verdict(self, corrected: float | None) -> str:
        """Returns the answer to the question whether the mean difference is above zero.

        Args:
            corrected: the p-value after the correction for many questions; None if the question is not in the family.
        """
        if corrected is None:
            return f'unclear: {self.signs}'
        if corrected > LEVEL:
            return 'unclear'
        return DECIDED[0 if statistics.fmean(self.differences) > 0 else 1]


def read_rows(group: str) -> list[Row]:
    """Reads the rows of all systems with at least one record, in the order of the systems.

    Args:
        group: a name of `GROUPS`. Records of several folds are pooled; a seed without a record of each fold is left
            out.

    Raises:
        DataError: a record is damaged or has another recipe version, or a file of counts is missing or damaged.
    """
    folds: dict[str, dict[int, list[Record]]] = {}
    for setting in GROUPS[group]:
        for record in read_records(setting):
            folds.setdefault(record['system'], {}).setdefault(record['seed'], []).append(record)
    count = len(GROUPS[group])
    by_system = {
        name: {seed: found[0] if count == 1 else pooled(found) for seed, found in seeds.items() if len(found) == count}
        for name, seeds in folds.items()
    }
    return [Row(s, by_system[s.name]) for s in systems_of(GROUPS[group][0]) if by_system.get(s.name)]


def compare(better: Row, worse: Row, value: Value) -> Comparison:
    """Computes `better` minus `worse` for each seed that both rows have."""
    seeds = tuple(sorted(better.by_seed.keys() & worse.by_seed.keys()))
    return Comparison(seeds, tuple(value(better.by_seed[s]) - value(worse.by_seed[s]) for s in seeds))


def compare_miou(better: Row, worse: Row, split: str) -> Comparison:
    """Computes the difference in pooled mIoU for each seed that both rows have, and its dependence on the images.

    On the first data sets, the difference is that of the recorded scores, without a part of the images.

    Raises:
        DataError: the rows were tested on different images.
    """
    found = compare(better, worse, miou(split))
    if better.first['setting'] in FIRST:
        return found
    pairs = [Pair(*(read_counts(row.by_seed[seed], split) for row in (better, worse))) for seed in found.seeds]
    if not pairs or any(counts is None for pair in pairs for counts in pair):
        return found
    names = pairs[0].better.names.tolist()
    if any(counts.names.tolist() != names for pair in pairs for counts in pair):
        raise DataError(
            f'{better.system.name} and {worse.system.name} were tested on different images. Run them again.'
        )
    frames = better.first['setting'].startswith('camvid')
    differences = tuple(pooled_miou(pair.better) - pooled_miou(pair.worse) for pair in pairs)
    return Comparison(
        found.seeds, differences, image_spread(pairs, frame_blocks(names) if frames else range(len(names)))
    )


def miou(split: str) -> Value:
    """Returns a function that computes the mIoU (%) of a record on a split."""
    return lambda record: record['tests'][split]['mIoU']


def class_iou(split: str, name: str) -> Value:
    """Returns a function for the IoU (%) of a class; NaN if the class is in neither truth nor prediction."""
    return lambda record: record['tests'][split]['IoU'].get(name, math.nan)


def spread(values: Sequence[float]) -> float:
    """Returns the sample standard deviation, or 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def mean_text(values: Sequence[float], digits: int = 2) -> str:
    """Formats values as `mean ± standard deviation`, or a single value alone."""
    mean = f'{statistics.fmean(values):.{digits}f}'
    return f'{mean} ± {spread(values):.{digits}f}' if len(values) > 1 else mean
