"""Sweep over degradations and severities: tests a model at several severities of each degradation.

The model is built once. mmengine's test loop then runs once for each point, i.e. for one degradation at one severity.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner, TestLoop

from rass_mm.analysis.robustness.curve import CLEAN, Curve, Key
from rass_mm.datasets.preflight import check_data_folders
from rass_mm.degradation.recipe import OSEDIFF
from rass_mm.degradation.severity import KINDS, parameter
from rass_mm.degradation.transforms import FixedDegradation
from rass_mm.engine.trackers import drop_trackers
from rass_mm.errors import ConfigError

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Sweep:
    """Degradations and severities to test, and the images and random draws to test them with.

    Args:
        kinds: Degradations from `KINDS`.
        severities: Numbers in [0, 1], from mild to hard.
        seed: Seed of the random degradations.
        limit: Number of images to test, in order of their names; None tests all images.
        recipe_version: Version of the degradation recipe for the kind 'mixed'.
        calibration: Whether to measure the expected calibration error as well.

    Raises:
        ConfigError: a value is out of range.
    """

    kinds: tuple[str, ...] = KINDS
    severities: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    seed: int = 0
    limit: int | None = None
    recipe_version: int = OSEDIFF.version
    calibration: bool = False

    def __post_init__(self) -> None:
        """Checks the values before anything is loaded."""
        wrong = [severity for severity in self.severities if not 0 <= severity <= 1]
        if wrong:
            raise ConfigError(f'--severities: {wrong[0]} is not in the range 0 to 1.')
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f'--limit is {self.limit}, but it must be at least 1.')

    @property
    def keys(self) -> list[Key]:
        """Kinds and severities of all points: the clean images, then each degradation from mild to hard."""
        severities = sorted(set(self.severities))
        return [(CLEAN, None), *((kind, severity) for kind in dict.fromkeys(self.kinds) for severity in severities)]


def sweep_config(config: Config, sweep: Sweep) -> Config:
    """Returns a copy of a segmentation config that tests its clean validation images, degraded by `FixedDegradation`.

    The rest of the test pipeline, the model and the metric are unchanged.

    Raises:
        ConfigError: the config does not define its clean images, does not test mIoU, or has no step that loads images.
        DataError: the images do not exist.
    """
    config = copy.deepcopy(config)
    _use_clean_images(config)
    dataset = config.test_dataloader.dataset
    _use_per_class(config)
    check_data_folders(config.test_dataloader, 'test_dataloader')
    if sweep.limit is not None:
        dataset.indices = sweep.limit
    folder = Path(dataset.get('data_root') or '') / dataset.data_prefix.img_path
    steps = list(dataset.pipeline)
    loading = next((i for i, step in enumerate(steps) if 'LoadImage' in str(step.get('type'))), None)
    if loading is None:
        raise ConfigError('The test pipeline has no step that loads the image. Add one, such as LoadImageFromFile.')
    recipe = {'version': sweep.recipe_version}
    degradation = {'type': 'FixedDegradation', 'seed': sweep.seed, 'folder': str(folder), 'recipe': recipe}
    steps.insert(loading + 1, degradation)
    dataset.pipeline = steps
    config.test_dataloader.persistent_workers = False  # persistent workers would keep their first degradation
    return config


def _use_clean_images(config: Config) -> None:
    clean = config.get('clean_val') or {}
    if not {'img_path', 'img_suffix'} <= clean.keys():
        raise ConfigError(
            'The config does not define its clean validation images. Set --cfg-options '
            'clean_val.img_path=FOLDER_BELOW_DATA_ROOT clean_val.img_suffix=.jpg, or add '
            "clean_val = dict(img_path='img_dir/val', img_suffix='.jpg') to the config."
        )
    dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
    if not {'data_prefix', 'pipeline'} <= dataset.keys():
        raise ConfigError(
            'test_dataloader.dataset has no data_prefix or no pipeline. Set it to a plain data set of mmseg, without a '
            'wrapper.'
        )
    dataset.data_prefix.img_path = clean.img_path
    dataset.img_suffix = clean.img_suffix


def _use_per_class(config: Config) -> None:
    evaluator = config.get('test_evaluator')
    kind = evaluator.get('type') if isinstance(evaluator, dict) else None
    known = str(kind).split('.')[-1] in ('IoUMetric', 'MeanIoUMetric')
    if not known or 'mIoU' not in evaluator.get('iou_metrics', ['mIoU']):
        raise ConfigError(
            f"test_evaluator is {evaluator}. For robustness, set it to dict(type='IoUMetric', iou_metrics=['mIoU']) or "
            "dict(type='MeanIoUMetric', mean_over='present')."
        )
    config.test_evaluator = {**evaluator, 'type': 'PerClassIoUMetric'}


class _Report(Hook):
    """Hook that reports the number of tested images after every batch."""

    def __init__(self, advance: Advance) -> None:
        self.advance = advance

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.advance(len(outputs))


def run_sweep(
    config: Config,
    checkpoint: Path,
    curve: Curve,
    sweep: Sweep,
    advance: Advance,
    finished: Callable[[dict[str, Any]], None],
) -> None:
    """Tests the points that `curve` does not contain yet. Adds each point to the curve as soon as it is tested.

    Args:
        config: A config from `sweep_config` and `prepare_config`.
        checkpoint: The checkpoint file to test.
        curve: The curve to add points to.
        sweep: The points to test.
        advance: Called after each batch with its number of images.
        finished: Called with each new point after it is written to the file of the curve.

    Raises:
        CheckpointError, DataError: the checkpoint or an image cannot be used; finished points are kept.
    """
    config.load_from, config.resume = str(checkpoint), False
    if sweep.calibration:
        config.test_evaluator = [config.test_evaluator, {'type': 'CalibrationMetric'}]
    drop_trackers(config)
    runner = Runner.from_cfg(config)
    runner.register_hook(_Report(advance))
    # Runner.test's setup around its loop, run only once because hooks may change the model there.
    loop = runner.test_loop
    runner.call_hook('before_run')
    runner.load_or_resume()
    steps = loop.dataloader.dataset.pipeline.transforms
    degradation = next(step for step in steps if isinstance(step, FixedDegradation))
    for kind, severity in curve.missing(sweep.keys):
        point = _tested(loop, degradation, kind, severity, curve.header['data']['classes'])
        curve.add(point)
        finished(point)
    runner.call_hook('after_run')


def _tested(
    loop: TestLoop, degradation: FixedDegradation, kind: str, severity: float, classes: Sequence[str]
) -> dict[str, Any]:
    """Tests one point and returns it."""
    clean = kind == CLEAN
    degradation.set(None if clean else kind, 0.0 if clean else severity)
    started = time.monotonic()
    metrics = loop.run()
    return {
        'kind': kind,
        'severity': severity,
        'parameter': None if clean else parameter(kind, severity),
        **{name: round(float(metrics[name]), 4) for name in ('mIoU', 'aAcc', 'mAcc')},
        **{name: metrics[name] for name in ('classes',) if name in metrics},
        **{name: round(metrics[name], 4) for name in ('ECE', 'confidence') if name in metrics},
        'IoU': dict(zip(classes, metrics['IoU'], strict=True)),
        'images': len(loop.dataloader.dataset),
        'seconds': round(time.monotonic() - started, 2),
    }
