"""JSON file with the robustness curves of one model: settings, data and the points tested so far.

A point is the result for one degradation at one severity. The file is rewritten atomically after every point, so that
an interrupted test can resume.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rass_mm.analysis.schemas import CLEAN as CLEAN
from rass_mm.analysis.schemas import CurveRecord
from rass_mm.errors import DataError
from rass_mm.files.atomic import write_text
from rass_mm.files.schemas import checked, read_json

logger = logging.getLogger(__name__)

FORMAT = 'rass_mm robustness curve, 1'
WRITTEN = 'Pass a JSON file that this version of rass-mm robustness wrote.'
SHOWN = 8
Key = tuple[str, float | None]
"""Kind of degradation and severity of a point. (CLEAN, None) is the test without degradation."""


@dataclass
class Curve:
    """Robustness curves of one model.

    Args:
        path: The JSON file.
        header: A dict of JSON values with the keys `format`, `name`, `config`, `checkpoint`, `seed`, `recipe_version`,
            `data` and `settings`.
        points: One dict per point with the keys `kind`, `severity`, `parameter`, `mIoU`, `aAcc`, `mAcc`, `IoU`,
            `images`, `seconds` and `run` (the index of the command in `runs`). If the mean is over labelled classes
            only, `classes` is their number; `ECE` and `confidence` exist if the calibration was measured. Metrics are
            in percent.
        runs: One dict per command that added points, with the keys `command`, `device` and `versions`.
    """

    path: Path
    header: dict[str, Any]
    points: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the model in tables and plots."""
        return self.header['name']

    def value(self, kind: str, severity: float | None, metric: str = 'mIoU') -> float | None:
        """Returns a metric of a point in percent, or None if it has not been measured."""
        found = (point for point in self.points if (point['kind'], point['severity']) == (kind, severity))
        return next((point.get(metric) for point in found), None)

    def missing(self, keys: Sequence[Key]) -> list[Key]:
        """Returns those of the `keys` that have not been tested yet, in the same order."""
        return [key for key in keys if self.value(*key) is None]

    def begin(self, run: Mapping[str, Any]) -> None:
        """Records the command that adds the next points. Warns if the device or the versions have changed."""
        run = json.loads(json.dumps(run))
        last = self.runs[-1] if self.runs else run
        for part in ('device', 'versions'):
            if last[part] != run[part]:
                logger.warning('%s was started with %s. Resuming with %s.', self.path, last[part], run[part])
        if not self.runs or last != run:
            self.runs.append(run)

    def add(self, point: Mapping[str, Any]) -> None:
        """Adds a point and writes the file."""
        self.points.append({**point, 'run': len(self.runs) - 1})
        record = {**self.header, 'runs': self.runs, 'points': self.points}
        write_text(self.path, json.dumps(record, indent=1, allow_nan=False) + '\n')


def read_curve(path: Path) -> Curve:
    """Reads a curve from its JSON file.

    Raises:
        DataError: the file does not exist, was not written by `rass-mm robustness`, or contains no points.
    """
    record = read_json(path, Any, WRITTEN)
    if not isinstance(record, dict) or record.get('format') != FORMAT:
        raise DataError(f'{path} is not a robustness curve in the format {FORMAT!r}. {WRITTEN}')
    checked(record, CurveRecord, f'{path} is not a complete robustness curve', WRITTEN)
    points, runs = record.pop('points'), record.pop('runs')
    if not points:
        raise DataError(f'{path} contains no points. Delete the file and run the test again.')
    return Curve(path, record, points, runs)


def open_curve(path: Path, header: Mapping[str, Any]) -> Curve:
    """Opens the curve of a test, or creates it if the file does not exist.

    Raises:
        DataError: the file contains points of another test. The message lists the differences.
    """
    header = json.loads(json.dumps(header, default=str))
    if not path.exists():
        return Curve(path, header)
    curve = read_curve(path)
    differing = differences(identity(curve.header), identity(header))
    if differing:
        raise DataError(
            f'{path} contains points of another test:\n{differing}\n'
            'Choose another --name or --out, delete this file, or use its settings '
            f'(--recipe-version {recipe_version(curve.header)}).'
        )
    return Curve(path, header, curve.points, curve.runs)


def check_comparable(curves: Sequence[Curve]) -> None:
    """Checks that curves can be shown in one plot.

    Raises:
        DataError: two curves have the same name, or their tests are not comparable.
    """
    first = curves[0]
    for number, curve in enumerate(curves):
        if curve.name in [other.name for other in curves[:number]]:
            raise DataError(f'Two curves are named {curve.name!r}. Use a different --name for each test.')
        differing = differences(protocol(first.header), protocol(curve.header))
        if differing:
            raise DataError(
                f'{first.path} and {curve.path} cannot be compared, because their tests differ:\n{differing}\n'
                'Test both on the same images with the same --seed, --limit, --recipe-version and test_evaluator.'
            )


def identity(header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that all points of a curve share. Names and locations of files are not included."""
    return {
        **protocol(header),
        'checkpoint': header['checkpoint']['sha256'],
        'settings': header['settings'],
    }


def protocol(header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that comparable curves share: images, labels, random draws and the classes in the mean."""
    data = {key: header['data'][key] for key in ('images', 'classes', 'sha256')}
    version = recipe_version(header)
    return {'seed': header['seed'], 'recipe_version': version, 'data': data, 'mean_over': mean_over(header)}


def mean_over(header: Mapping[str, Any]) -> str:
    """Returns the rule by which the mIoU of a curve was averaged, a key of `MEAN_OVER`."""
    return header['settings'].get('evaluator', {}).get('mean_over', 'all')


def recipe_version(header: Mapping[str, Any]) -> int:
    """Returns the version of the degradation recipe. Files that do not state a version use version 1."""
    return header.get('recipe_version', 1)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Lists up to `SHOWN` differences between two nested dicts, one per line, or returns '' if they are equal."""
    old, new = flattened(old), flattened(new)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    lines = [f'  {key}: {_short(old.get(key))}, now {_short(new.get(key))}' for key in keys[:SHOWN]]
    return '\n'.join(lines + ([f'  and {len(keys) - SHOWN} more'] if len(keys) > SHOWN else []))


def flattened(value: Any, prefix: str = '') -> dict[str, Any]:
    """Flattens nested dicts and lists to one dict with dotted keys, e.g. `{'model.backbone.depth': 18}`."""
    if isinstance(value, (dict, list)) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        pairs = (flattened(part, f'{prefix}.{key}' if prefix else str(key)) for key, part in items)
        return {key: leaf for part in pairs for key, leaf in part.items()}
    return {prefix: value} if prefix else {}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + '...'
