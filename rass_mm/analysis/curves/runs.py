"""Reads the values that trainings logged, and joins the parts of resumed runs.

mmengine writes one folder per start of a run, named after its time, with `vis_data/scalars.json`: one JSON object per
line, with the iteration as `step`.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rass_mm.errors import DataError, clipped
from rass_mm.files.regular import check_regular

SCALARS = Path('vis_data') / 'scalars.json'
OMITTED = ('step', 'iter', 'epoch', 'time', 'data_time', 'memory', 'eta')
"""Logged values that are not curves."""
TRAINING = ('iter', 'data_time', 'lr', 'loss')
"""Keys, at least two of which are in each line of a training and not of a validation."""


@dataclass(frozen=True)
class Line:
    """One line of a log.

    Args:
        iteration: number of iterations (updates) at that time.
        training: whether the line is of the training, not of a validation.
        values: name -> value.
    """

    iteration: int
    training: bool
    values: dict[str, float]


@dataclass(frozen=True)
class Run:
    """Curves of one training.

    Args:
        name: name of the run.
        files: the log files, oldest first.
        curves: name -> iteration -> value, in the order of iterations. Names of validations start with `val/`.
        notes: what was left out.
    """

    name: str
    files: list[Path]
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_runs(paths: Sequence[str]) -> list[Run]:
    """Reads runs from their work folders.

    Args:
        paths: each is `PATH` or `NAME=PATH`. Text that is an existing path is not split.

    Raises:
        DataError: a folder does not exist, contains no log, is given twice, or a line other than the last of a log is
            damaged.
    """
    given = [_named(path) for path in paths]
    names = [name or folder.resolve().name for name, folder in given]
    names = [
        str(folder) if given_name is None and names.count(name) > 1 else name
        for name, (given_name, folder) in zip(names, given, strict=True)
    ]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f'{twice} is given twice. Pass each run once, with a name of its own.')
    return [_read(name, folder) for name, (_, folder) in zip(names, given, strict=True)]


def _named(given: str) -> tuple[str | None, Path]:
    name, equals, path = given.partition('=')
    return (name, Path(path)) if equals and not Path(given).exists() else (None, Path(given))


def _read(name: str, folder: Path) -> Run:
    if not folder.is_dir():
        raise DataError(f'{folder} is not a folder. Pass the work folder of a training, or NAME=FOLDER.')
    files = sorted(folder.glob(f'*/{SCALARS}')) or [file for file in (folder / SCALARS,) if file.exists()]
    if not files:
        raise DataError(
            f'{folder} contains no {SCALARS} of a training. Pass the work folder of a training (--work-dir) that has '
            'logged at least once.'
        )
    run = Run(name, files)
    parts = [list(_lines(file, run.notes)) for file in files]
    for line in joined(parts):
        for key, value in line.values.items():
            run.curves.setdefault(key if line.training else f'val/{key}', {})[line.iteration] = value
    return run


def joined(parts: Sequence[Sequence[Line]]) -> list[Line]:
    """Joins the lines of the starts of a run, oldest first.

    A run that was killed can have logged iterations after the checkpoint from which the next start resumed. These are
    done again, so what an earlier start logged after the checkpoint is dropped. Logs do not name the checkpoint. It is
    taken to be one logging interval before the first line, so that no value that was done again is kept. The interval
    is that of the first two lines. If there is only one line, what is before it is kept.

    The checkpoint is later if the earlier start made a validation after this iteration that was not done again,
    although the next start would have done so with the same validation interval, see `_last_validation`.
    """
    kept: list[Line] = []
    for part in parts:
        trained = sorted({line.iteration for line in part if line.training})
        first = trained[0] if trained else math.inf
        start = 2 * first - trained[1] if len(trained) > 1 else first
        start = max(start, _last_validation(kept, part, first))
        kept = [line for line in kept if line.iteration < first and line.iteration <= start] + list(part)
    return kept


def _last_validation(earlier: Sequence[Line], later: Sequence[Line], first: float) -> float:
    """Returns the iteration of the last validation of earlier starts that a later start did not do again, or 0.

    A validation counts only if the next one, one interval after it, was done by the later start or is not due yet.
    Otherwise, the interval was changed, or validations were between it and the checkpoint.

    Args:
        earlier: lines of the earlier starts.
        later: lines of the later start.
        first: first logged iteration of the training in the later start. Validations from there on do not count.
    """
    validations = sorted({line.iteration for line in earlier if not line.training and line.iteration < first})
    again = {line.iteration for line in later if not line.training}
    reached = max((line.iteration for line in later), default=0)
    found = interval = 0
    for before, iteration in itertools.pairwise([0, *validations]):
        gap = iteration - before
        interval = interval if iteration % gap else gap  # a validation at the end of a run can be between two others
        due = (iteration // interval + 1) * interval
        if iteration not in again and (due > reached or due in again):
            found = iteration
    return found


def _lines(file: Path, notes: list[str]) -> Iterator[Line]:
    """Yields the lines of a log. A damaged last line, as of a killed or running process, is left out and noted."""
    check_regular(file, 'Omit this run.')
    lines = file.read_text(encoding='utf-8', errors='replace').splitlines()
    for number, text in enumerate(lines, 1):
        try:
            found = json.loads(text)
            iteration, values = int(found['step']), _values(found)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if number < len(lines):
                raise DataError(
                    f'{file}, line {number}: {clipped(text)!r} is not a logged line ({type(error).__name__}: {error}). '
                    'Remove this line, or omit the run.'
                ) from None
            notes.append(f'{file}: the last line ({number}) is incomplete and was left out.')
            return
        yield Line(iteration, sum(key in found for key in TRAINING) >= 2, values)


def _values(found: dict[str, Any]) -> dict[str, float]:
    numbers = {key: value for key, value in found.items() if isinstance(value, int | float)}
    return {key: float(value) for key, value in numbers.items() if key not in OMITTED and not isinstance(value, bool)}
