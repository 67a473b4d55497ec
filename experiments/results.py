"""Rows of records, and the statistics that tables and plots share."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.stats import ttest_1samp

from experiments.store import Record, read_records
from experiments.systems import SEEDS, System, systems_of

Value = Callable[[Record], float]


@dataclass(frozen=True)
class Row:
    """The records of one system on one data set, by seed."""

    system: System
    by_seed: dict[int, Record]

    @property
    def first(self) -> Record:
        """The record of the lowest seed, for values that all seeds share."""
        return self.by_seed[min(self.by_seed)]

    def values(self, value: Value) -> list[float]:
        """One number per seed."""
        return [value(self.by_seed[seed]) for seed in sorted(self.by_seed)]


@dataclass(frozen=True)
class Comparison:
    """Differences of two systems seed by seed."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]

    @property
    def whole(self) -> bool:
        """Whether all seeds were run."""
        return len(self.differences) == len(SEEDS)

    @property
    def signs(self) -> str:
        """Whether the differences of all seeds have one sign; for three seeds that has a chance probability of 1/4."""
        if not self.whole:
            return f'{len(self.differences)} of {len(SEEDS)} seeds run'
        if all(difference > 0 for difference in self.differences):
            return 'agree'
        return 'agree, reversed' if all(difference < 0 for difference in self.differences) else 'disagree'

    @property
    def p_value(self) -> float:
        """Two-sided paired t-test that the mean difference is 0, not corrected for the number of questions."""
        return float(ttest_1samp(self.differences, 0).pvalue)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean difference (Student's t over the seeds); None for a single seed."""
        if len(self.differences) < 2:
            return None
        return tuple(map(float, ttest_1samp(self.differences, 0).confidence_interval(0.95)))


def read_rows(setting: str) -> list[Row]:
    """Rows of all systems with at least one record, in the order of the systems.

    Raises:
        DataError: a record is damaged or of another recipe version.
    """
    by_system: dict[str, dict[int, Record]] = {}
    for record in read_records(setting):
        by_system.setdefault(record['system'], {})[record['seed']] = record
    return [Row(system, by_system[system.name]) for system in systems_of(setting) if system.name in by_system]


def compare(better: Row, worse: Row, value: Value) -> Comparison:
    """`better` minus `worse`, seed by seed, for the seeds that both have."""
    seeds = tuple(sorted(better.by_seed.keys() & worse.by_seed.keys()))
    return Comparison(seeds, tuple(value(better.by_seed[s]) - value(worse.by_seed[s]) for s in seeds))


def miou(split: str) -> Value:
    """mIoU (%) on a split."""
    return lambda record: record['tests'][split]['mIoU']


def class_iou(split: str, name: str) -> Value:
    """IoU (%) of one class; NaN where it occurs neither in truth nor in prediction."""
    return lambda record: record['tests'][split]['IoU'].get(name, math.nan)


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def mean_text(values: Sequence[float], digits: int = 2) -> str:
    """`mean ± standard deviation`, or a single value by itself."""
    mean = f'{statistics.fmean(values):.{digits}f}'
    return f'{mean} ± {spread(values):.{digits}f}' if len(values) > 1 else mean
