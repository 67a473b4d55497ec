"""Collects the record of a run, from which all tables and curves are made, from the files of its commands."""

import hashlib
import json
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from experiments.commands import Run
from experiments.costs import cost_of
from experiments.counts import Counts, counts_of_maps, pooled_miou, scores
from experiments.store import Record, find_record, line_of
from experiments.systems import recipe_version
from rass_mm.apis import RESULT
from rass_mm.datasets.names import class_names
from rass_mm.degradation.versions import lq_steps, step_version
from rass_mm.diffusion.base import read_base
from rass_mm.errors import DataError

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


def make_record(run: Run) -> tuple[Record, dict[str, Counts]]:
    """Collects the record of a run and the pixel counts of its tests after its commands have finished.

    Raises:
        DataError: its tests contradict each other or have another recipe version.
    """
    counts = {} if run.system.restores else {name: _counts(run, name) for name in run.tests}
    tests = {name: _tested(run, name, counts.get(name)) for name in run.tests}
    described = json.loads((run.outcome(next(iter(tests))) / RESULT).read_text())
    record = {
        'setting': run.setting,
        'system': run.system.name,
        'seed': run.seed,
        'config': run.config,
        'config_hash': config_hash(run.resolved()),
        'options': run.options,
        'recipe_version': recipe_version(run.setting),
        **_base(run),
        **cost_of(run),
        'commands': run.commands,
        'revision': revision(),
        'device': described['device'],
        'versions': described['versions'],
        **(_training(run) if run.training else {'steps': run.steps}),
        'tests': tests,
    }
    return record, counts


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

    rows = (f'experiments/{name}.py' for name in ('system', 'systems', 'second'))
    code = ('rass_mm', 'configs', 'experiments/configs', *rows)
    changed = git('status', '--porcelain', '--untracked-files=no', '--', *code)
    return (git('rev-parse', '--short=12', 'HEAD') or 'unknown') + ('+' if changed else '')


def _training(run: Run) -> dict[str, Any]:
    """Reads the steps, seconds (without start-up and validation), losses and validation curve of a training run."""
    lines = _logged(run.folder)
    losses = {line['step']: line for line in lines if 'loss' in line}  # a resumed run logs some steps again
    scores, _ = curve_of(run.folder, run.system.restores)
    steps = sorted(losses)
    spans = np.diff([0, *steps])
    return {
        'steps': run.steps,
        'seconds': round(float(sum(losses[s]['time'] * n for s, n in zip(steps, spans, strict=True))), 1),
        'seconds_per_step': round(statistics.median(line['time'] for line in losses.values()), 3),
        'loss': [[step, round(losses[step]['loss'], 4)] for step in steps],
        'curve': [[step, round(value, 3)] for step, value in sorted(scores.items())],
    }


def curve_of(folder: Path, restores: bool) -> tuple[dict[int, float], str]:
    """Reads the validation scores by step from the logs of a training, and returns them with the name of the score."""
    score = 'PSNR' if restores else 'mIoU'
    return {line['step']: line[score] for line in _logged(folder) if score in line}, score


def _logged(folder: Path) -> list[dict[str, Any]]:
    return [line for file in sorted(folder.glob('*/vis_data/scalars.json')) for line in _lines(file)]


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines() if line.strip()]


def _base(run: Run) -> dict[str, Any]:
    """Returns the hash of the weights of the base that a system uses, and the seed of its training; None without."""
    found = [read_base(sources) for sources in _bases(run.resolved().model.to_dict())]
    identities = {base.identity['weights']: base for base in found}
    if len(identities) > 1:
        raise DataError(f'{run.label} uses the bases {", ".join(str(base.folder) for base in found)}. Use one of them.')
    for identity, base in identities.items():
        training = base.folder / 'training.json'
        recipe = json.loads(training.read_text())['recipe'] if training.is_file() else {}
        return {'base': identity, 'base_seed': recipe.get('seed')}
    return {'base': None, 'base_seed': None}


def _bases(model: Any) -> Iterator[Any]:
    """Yields the values of `base` in the config of a model, at any depth."""
    if isinstance(model, dict):
        if model.get('base'):
            yield model['base']
        for part in model.values():
            yield from _bases(part)


def _counts(run: Run, name: str) -> Counts:
    return counts_of_maps(run.resolved().test_dataloader.dataset, run.predictions(name))


def _tested(run: Run, name: str, counts: Counts | None) -> dict[str, Any]:
    described = json.loads((run.outcome(name) / RESULT).read_text())
    _check_recipe(run, name, described.get('recipe_version') or {})
    result = {**described['metrics'], 'protocol': described.get('protocol')}
    if counts is None:
        return result
    known = scores(counts, class_names(run.resolved().test_dataloader.dataset.type))
    if abs(pooled_miou(counts) - result['mIoU']) > AGREE:
        raise DataError(
            f'{run.label}: the label maps of the {name} test do not give its mIoU ({result["mIoU"]}). Remove '
            f'{run.predictions(name)} and run it again.'
        )
    return {**result, **known}


def _check_recipe(run: Run, name: str, versions: dict[str, int | None]) -> None:
    """Raises an error if the data or the training pipeline of a test has another recipe version."""
    version = recipe_version(run.setting)
    if set(versions.values()) - {None, version}:
        raise DataError(
            f'{run.label}: the {name} test has recipe versions {versions}, but {run.setting} belongs to version '
            f'{version}. Give LQDegradation in {run.config} recipe=dict(version={version}), and make the data in an '
            f'empty folder with `python -m experiments prepare`.'
        )
