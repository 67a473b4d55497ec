"""Writes pictures of the images with the best, median and worst gain of RASS over its backbone without SCR."""

import logging
from pathlib import Path

import cv2
import numpy as np
from mmseg.registry import DATASETS

from experiments.commands import Run
from experiments.store import find_record, records_file
from experiments.systems import systems_of
from rass_mm.errors import DataError
from rass_mm.visualization import colored, comparison_page

logger = logging.getLogger(__name__)
DOCS = Path('docs/evidence')
SHOWN = ('ft', 'base', 'rass')
TITLES = ('degraded', 'restored (SCR)', 'FT', 'base', 'RASS', 'truth')
GAIN, OVER = 'rass', 'base'
EACH = 2


def write_pages(setting: str, seed: int = 0) -> None:
    """Writes `gains.png` with two images each of the best, median and worst gain.

    The picture of CamVid is written to the work folder because its images may not be redistributed under this licence.

    Raises:
        DataError: a required run has no record, or its predictions are missing.
    """
    runs = {system.name: Run(setting, system, seed) for system in systems_of(setting)}
    names = chosen(runs[GAIN], runs[OVER])
    restored = runs['scr'].predictions('restore')
    data = runs[GAIN].resolved().test_dataloader.dataset
    root, meta = Path(data.data_root), DATASETS.get(data.type).METAINFO
    rows = []
    for name, gain in names:
        labels = [_read(runs[system].predictions('degraded') / f'{name}.png') for system in SHOWN]
        pictures = [
            _read(root / 'img_lq/val' / f'{name}.png'),
            _read(restored / f'{name}.png'),
            *(colored(label, meta['palette']) for label in labels),
            colored(_read(root / data.data_prefix.seg_map_path / f'{name}.png'), meta['palette']),
        ]
        cv2.putText(
            pictures[0], f'{gain:+.1f}', (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA
        )
        rows.append(pictures)
    target = (DOCS if setting.startswith('scenes') else Path('work_dirs/experiments')) / setting / 'gains.png'
    target.parent.mkdir(parents=True, exist_ok=True)
    comparison_page(target, TITLES, rows, meta['classes'], meta['palette'])
    logger.info('%s: %s', target, ', '.join(f'{name} {gain:+.1f}' for name, gain in names))


def chosen(gain: Run, over: Run) -> list[tuple[str, float]]:
    """Returns `EACH` images with the best, median and worst gain in mIoU as (image, gain), best first."""
    scores = [_scores(run) for run in (gain, over)]
    gains = sorted(((name, scores[0][name] - scores[1][name]) for name in scores[0]), key=lambda pair: -pair[1])
    middle = (len(gains) - EACH) // 2
    return [*gains[:EACH], *gains[middle : middle + EACH], *gains[-EACH:]]


def _scores(run: Run) -> dict[str, float]:
    record = find_record(run)
    if record is None:
        raise DataError(
            f'{records_file(run.setting)} has no record of {run.label}. Run `python -m experiments run {run.setting}`.'
        )
    return record['tests']['degraded']['images']


def _read(file: Path) -> np.ndarray:
    picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise DataError(f'{file} is missing or damaged. Run its system again with `--systems NAME --again`.')
    return picture
