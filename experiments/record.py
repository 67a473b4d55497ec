"""One JSON per run, from what the ordinary commands left behind: enough for every table and curve."""

import hashlib
import json
import math
import statistics
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from experiments.commands import Run, typed
from experiments.systems import RECIPE_VERSION
from rass_mm.apis import RESULT
from rass_mm.config import load_config
from rass_mm.degradation.versions import lq_steps, step_version
from rass_mm.errors import DataError
from rass_mm.files.atomic import write_text
from rass_mm.metrics.iou import class_ious, mean_iou

AGREE = 0.011
"""Points of mIoU by which label maps and test may differ: the test's value is rounded to two places."""


def is_recorded(run: Run) -> bool:
    """Whether a run is finished.

    Raises:
        DataError: its record was made with another config, other overrides or another recipe version.
    """
    if not run.record.is_file():
        return False
    known = json.loads(run.record.read_text())
    if known['config_hash'] != config_hash(run) or known['options'] != run.options:
        raise DataError(
            f'{run.record} was made with another version of {run.config}. Move it away to run the system again, or '
            f'give the changed config a name of its own.'
        )
    if known.get('recipe_version') != RECIPE_VERSION:
        raise DataError(
            f'{run.record} belongs to recipe version {known.get("recipe_version", "unknown")}, the experiments to '
            f'version {RECIPE_VERSION}. Move it away to run the system again.'
        )
    return True


def config_hash(run: Run) -> str:
    """Of the resolved config: what decides the result, apart from the options.

    Version 1 of the recipe is left out and every other one is in it, stated or not: the hashes of the first records are
    of configs that could not name it.
    """
    config = load_config(run.config)
    for step in lq_steps(list(config.values())):
        version, recipe = step_version(step), dict(step.pop('recipe', None) or {})
        recipe.pop('version', None)
        if version != 1:
            recipe['version'] = version
        if recipe:
            step['recipe'] = recipe
    return hashlib.sha256(config.pretty_text.encode()).hexdigest()[:16]


def write_record(run: Run, file: Path) -> None:
    """Writes the run's JSON; in the folder of records it comes last and marks the run as finished."""
    tests = {name: _tested(run, name) for name in run.tests}
    described = json.loads((run.outcome(next(iter(tests))) / RESULT).read_text())
    record = {
        'setting': run.setting,
        'system': run.system.name,
        'seed': run.seed,
        'config': run.config,
        'config_hash': config_hash(run),
        'options': run.options,
        'recipe_version': RECIPE_VERSION,
        'commands': [typed(arguments) for arguments in (run.training, *run.tests.values()) if arguments],
        'revision': revision(),
        'device': described['device'],
        'versions': described['versions'],
        **(_training(run) if run.training else {'steps': run.steps}),
        'tests': tests,
    }
    # One line per key: short enough to read, and a changed run shows as a few changed lines.
    lines = [f' {json.dumps(key)}: {json.dumps(value)}' for key, value in record.items()]
    write_text(file, '{\n' + ',\n'.join(lines) + '\n}\n')


def scores_beside(run: Run, file: Path) -> str:
    """The scores of another record of a run beside those of its own."""
    found, known = (json.loads(place.read_text())['tests'] for place in (file, run.record))
    score = 'PSNR' if run.system.restores else 'mIoU'
    return ', '.join(f'{test} {score} {found[test][score]:.2f} (recorded: {known[test][score]:.2f})' for test in known)


def revision() -> str:
    """The commit the code is at, with a plus sign where tracked code differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(['git', *arguments], capture_output=True, text=True).stdout.strip()

    changed = git('status', '--porcelain', '--untracked-files=no', '--', 'rass_mm', 'configs', 'experiments/configs')
    return (git('rev-parse', '--short=12', 'HEAD') or 'unknown') + ('+' if changed else '')


def _training(run: Run) -> dict[str, Any]:
    """Steps, seconds (training steps only, without start-up and validation), losses and the validation curve."""
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
    """Refuses a test on data, or with a training pipeline, of another recipe version than the records'."""
    if set(versions.values()) - {None, RECIPE_VERSION}:
        raise DataError(
            f'{run.label}: the {name} test has recipe versions {versions}, but the experiments belong to version '
            f'{RECIPE_VERSION}. Give LQDegradation in {run.config} recipe=dict(version={RECIPE_VERSION}), and make the '
            f'data in an empty folder with `python -m experiments prepare`.'
        )


def scores_of_maps(run: Run, name: str) -> tuple[dict[str, float], dict[str, float]]:
    """IoU (%) per class and their mean over the split, and mIoU (%) per image, from the written label maps."""
    from rass_mm.datasets.names import class_names

    data = load_config(run.config).test_dataloader.dataset
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
