"""Collects the record of a run, from which all tables and curves are made, from the files of its commands."""

import hashlib
import json
import math
import statistics
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

from experiments.commands import Run
from experiments.store import Record, find_record, line_of
from experiments.systems import RECIPE_VERSION
from rass_mm.apis import RESULT
from rass_mm.datasets.names import class_names
from rass_mm.degradation.versions import lq_steps, step_version
from rass_mm.errors import DataError
from rass_mm.metrics.iou import class_ious, mean_iou

AGREE = 0.011
"""Points of mIoU by which label maps and test may differ: the test's value is rounded to two places."""


def is_recorded(run: Run) -> bool:
    """Returns whether a run has a record.

    Raises:
        DataError: its record was made with a different config, overrides or recipe version.
    """
    known = find_record(run)
    if known is not None and known['config_hash'] != config_hash(run.resolved()):
        raise DataError(
            f'{line_of(run)} ({run.system.name}, seed {run.seed}) was made with other config values than those of '
            f'{run.config} and its row in systems.py. Delete the line to run the system again, or give the changed row '
            f'a name of its own.'
        )
    return known is not None


def config_hash(config: Config) -> str:
    """Returns the hash of a resolved config, independent of key order and with the default recipe version filled in."""
    values = config.to_dict()
    for step in lq_steps(values):
        step['recipe'] = {**(step.get('recipe') or {}), 'version': step_version(step)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def make_record(run: Run) -> Record:
    """Collects the record of a run after its commands have finished.

    Raises:
        DataError: its tests contradict each other or have another recipe version.
    """
    tests = {name: _tested(run, name) for name in run.tests}
    described = json.loads((run.outcome(next(iter(tests))) / RESULT).read_text())
    return {
        'setting': run.setting,
        'system': run.system.name,
        'seed': run.seed,
        'config': run.config,
        'config_hash': config_hash(run.resolved()),
        'options': run.options,
        'recipe_version': RECIPE_VERSION,
        'commands': run.commands,
        'revision': revision(),
        'device': described['device'],
        'versions': described['versions'],
        **(_training(run) if run.training else {'steps': run.steps}),
        'tests': tests,
    }


def scores_beside(run: Run, found: Record) -> str:
    """Formats the scores of a repeated run next to the recorded scores."""
    known = find_record(run)['tests']
    score = 'PSNR' if run.system.restores else 'mIoU'
    return ', '.join(
        f'{test} {score} {found["tests"][test][score]:.2f} (recorded: {known[test][score]:.2f})' for test in known
    )


def revision() -> str:
    """Returns the checked-out commit, with a plus sign if tracked code was modified."""

    def git(*arguments: str) -> str:
        return subprocess.run(['git', *arguments], capture_output=True, text=True).stdout.strip()

    code = ('rass_mm', 'configs', 'experiments/configs', 'experiments/systems.py')
    changed = git('status', '--porcelain', '--untracked-files=no', '--', *code)
    return (git('rev-parse', '--short=12', 'HEAD') or 'unknown') + ('+' if changed else '')


def _training(run: Run) -> dict[str, Any]:
    """Reads the steps, seconds (without start-up and validation), losses and validation curve of a training run."""
    lines = [line for file in sorted(run.folder.glob('*/vis_data/scalars.json')) for line in _lines(file)]
    losses = {line['step']: line for line in lines if 'loss' in line}  # a resumed run logs some steps again
    score = 'PSNR' if run.system.restores else 'mIoU'
    scores = {line['step']: line[score] for line in lines if score in line}
    steps = sorted(losses)
    spans = np.diff([0, *steps])
    return {
        'steps': run.steps,
        'seconds': round(float(sum(losses[s]['time'] * n for s, n in zip(steps, spans, strict=True))), 1),
        'seconds_per_step': round(statistics.median(line['time'] for line in losses.values()), 3),
        'loss': [[step, round(losses[step]['loss'], 4)] for step in steps],
        'curve': [[step, round(value, 3)] for step, value in sorted(scores.items())],
    }


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines() if line.strip()]


def _tested(run: Run, name: str) -> dict[str, Any]:
    described = json.loads((run.outcome(name) / RESULT).read_text())
    _check_recipe(run, name, described.get('recipe_version') or {})
    result = {**described['metrics'], 'protocol': described.get('protocol')}
    if run.system.restores:
        return result
    per_class, per_image = scores_of_maps(run, name)
    if abs(per_class.pop('mean') - result['mIoU']) > AGREE:
        raise DataError(
            f'{run.label}: the label maps of the {name} test do not give its mIoU ({result["mIoU"]}). Remove '
            f'{run.predictions(name)} and run it again.'
        )
    return {**result, 'IoU': per_class, 'images': per_image}


def _check_recipe(run: Run, name: str, versions: dict[str, int | None]) -> None:
    """Raises an error if the data or the training pipeline of a test has another recipe version."""
    if set(versions.values()) - {None, RECIPE_VERSION}:
        raise DataError(
            f'{run.label}: the {name} test has recipe versions {versions}, but the experiments belong to version '
            f'{RECIPE_VERSION}. Give LQDegradation in {run.config} recipe=dict(version={RECIPE_VERSION}), and make the '
            f'data in an empty folder with `python -m experiments prepare`.'
        )


def scores_of_maps(run: Run, name: str) -> tuple[dict[str, float], dict[str, float]]:
    """Computes IoU (%) per class with its mean, and mIoU (%) per image, from the written label maps."""
    data = run.resolved().test_dataloader.dataset
    classes = class_names(data.type)
    truths = sorted((Path(data.data_root) / data.data_prefix.seg_map_path).glob('*.png'))
    total, images = np.zeros((len(classes), len(classes)), np.int64), {}
    for file in truths:
        truth, predicted = (
            cv2.imread(str(place), cv2.IMREAD_UNCHANGED) for place in (file, run.predictions(name) / file.name)
        )
        confusion = _confusion(truth, predicted, len(classes))
        images[file.stem] = round(100 * mean_iou(confusion), 2)
        total += confusion
    scores = zip(classes, class_ious(total).tolist(), strict=True)
    known = {name: round(100 * score, 2) for name, score in scores if not math.isnan(score)}
    return {**known, 'mean': 100 * mean_iou(total)}, images


def _confusion(truth: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    counted = truth < count  # 255 is ignored
    pairs = truth[counted].astype(np.int64) * count + predicted[counted]
    return np.bincount(pairs, minlength=count * count).reshape(count, count)
