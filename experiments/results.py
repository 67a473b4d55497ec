"""Records grouped by system, and statistics used by tables and plots."""

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
    """Differences between two systems, by seed."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]

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
    def p_value(self) -> float:
        """P-value of a two-sided paired t-test for a zero mean, without correction for multiple questions."""
        return float(ttest_1samp(self.differences, 0).pvalue)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean difference (Student's t), or None for a single seed."""
        if len(self.differences) < 2:
            return None
        return tuple(map(float, ttest_1samp(self.differences, 0).confidence_interval(0.95)))


def read_rows(setting: str) -> list[Row]:
    """Reads the rows of all systems with at least one record, in the order of the systems.

    Raises:
        DataError: a record is damaged or has another recipe version.
    """
    by_system: dict[str, dict[int, Record]] = {}
    for record in read_records(setting):
        by_system.setdefault(record['system'], {})[record['seed']] = record
    return [Row(system, by_system[system.name]) for system in systems_of(setting) if system.name in by_system]


def compare(better: Row, worse: Row, value: Value) -> Comparison:
    """Computes `better` minus `worse` for each seed that both rows have."""
    seeds = tuple(sorted(better.by_seed.keys() & worse.by_seed.keys()))
    return Comparison(seeds, tuple(value(better.by_seed[s]) - value(worse.by_seed[s]) for s in seeds))


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
