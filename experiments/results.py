"""Reads the records, and the few statistics that tables and plots share."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import ttest_1samp

from experiments.systems import RECIPE_VERSION, ROOT, SEEDS, System, systems_of
from rass_mm.errors import DataError

Record = dict[str, Any]
Value = Callable[[Record], float]


@dataclass(frozen=True)
class Row:
    """The records of one system on one data set, by seed."""

    system: System
    by_seed: dict[int, Record]

    @property
    def first(self) -> Record:
        """The record of the lowest seed: for what is the same in all."""
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
        """Whether the differences of all seeds have one sign. Three seeds do in one case of four by chance alone."""
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
        """95 % interval of the mean difference (Student's t over the seeds); None for one seed."""
        if len(self.differences) < 2:
            return None
        return tuple(map(float, ttest_1samp(self.differences, 0).confidence_interval(0.95)))


def read_rows(setting: str) -> list[Row]:
    """Rows of all systems with at least one record, in the order of the systems.

    Raises:
        DataError: a record is damaged or of another recipe version.
    """
    rows = []
    for system in systems_of(setting):
        files = sorted((ROOT / 'results' / setting).glob(f'{system.name}-seed*.json'))
        by_seed = {record['seed']: record for record in map(_read, files)}
        if by_seed:
            rows.append(Row(system, by_seed))
    return rows


def _read(file: Any) -> Record:
    try:
        record = json.loads(file.read_text())
    except ValueError as error:
        raise DataError(f'{file} is no valid JSON ({error}). Take it from the repository again.') from None
    if record.get('recipe_version') != RECIPE_VERSION:
        raise DataError(
            f'{file} belongs to recipe version {record.get("recipe_version", "unknown")}; the tables are of version '
            f'{RECIPE_VERSION}. Move it away, or run it again.'
        )
    return record


def compare(better: Row, worse: Row, value: Value) -> Comparison:
    """`better` minus `worse`, for the seeds that both have."""
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
    """`mean ± standard deviation`; a single value stands alone."""
    mean = f'{statistics.fmean(values):.{digits}f}'
    return f'{mean} ± {spread(values):.{digits}f}' if len(values) > 1 else mean
