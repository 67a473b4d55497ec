"""Training and testing of a prepared config, for programs and for the command line."""

import json
import logging
from pathlib import Path
from typing import Any

import matplotlib
import torch
import torch.distributed
from matplotlib.backends import BackendFilter, backend_registry
from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner

from rass_mm.compat import recorded_versions
from rass_mm.datasets.classes import check_split, follow_classes
from rass_mm.datasets.preflight import check_data_folders
from rass_mm.degradation.versions import lq_steps, step_version
from rass_mm.devices import device_name, has_accelerator
from rass_mm.engine.pretrained import check_pretrained
from rass_mm.engine.records import command_line
from rass_mm.errors import ConfigError
from rass_mm.files.atomic import write_text
from rass_mm.protocol import protocol_line, recipe_versions

RESULT = 'metrics.json'
"""The file a test leaves in its work dir: metrics, protocol, command, checkpoint, data, recipe, seed and versions."""


def prepare_config(
    config: Config, launcher: str = 'none', amp: bool = False, work_dir: str | None = None, stem: str = 'run'
) -> Config:
    """Fits a config to its data set, this machine and the command line.

    The model and the label checks get the classes of the data set, see `follow_classes`. Mixed precision is bfloat16;
    where a machine cannot do that, `fitted_precision` says so and goes on, so that one config serves all. Distributed
    runs without a GPU use gloo.

    Raises:
        ConfigError: the config sets other classes than those of its data set.
    """
    follow_classes(config)
    config.launcher = launcher
    config.work_dir = work_dir or config.get('work_dir') or f'./work_dirs/{stem}'
    if config.get('optim_wrapper') is not None:
        config.optim_wrapper = fitted_precision(dict(config.optim_wrapper), amp)
    if launcher == 'pytorch' and not has_accelerator():
        join_cpu_processes(config)
    return config


def fitted_precision(wrapper: dict[str, Any], amp: bool = False) -> dict[str, Any]:
    """An `optim_wrapper` config for this machine: bfloat16 where it is wanted and there, else float16 or float32.

    A config of several named wrappers (SCR has two) is fitted one by one.
    """
    if 'optimizer' not in wrapper:
        parts = {key: fitted_precision(dict(part), amp) for key, part in wrapper.items() if isinstance(part, dict)}
        return {**wrapper, **parts}
    if not amp and wrapper.get('type') != 'AmpOptimWrapper':
        return wrapper
    plain = {key: value for key, value in wrapper.items() if key not in ('type', 'dtype', 'loss_scale')}
    if not has_accelerator():
        print_log('No accelerator here: training in float32 instead of mixed precision.', 'current', logging.WARNING)
        return {**plain, 'type': 'OptimWrapper'}
    if wrapper.get('type') == 'AmpOptimWrapper' and wrapper.get('dtype') not in (None, 'bfloat16'):
        return wrapper  # the config's own choice
    if is_cuda_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        print_log('This card has no bfloat16: training in float16 with loss scaling.', 'current', logging.WARNING)
        return {**plain, 'type': 'AmpOptimWrapper', 'dtype': 'float16', 'loss_scale': 'dynamic'}
    # bfloat16 has the range of float32, so there is no loss to scale.
    return {**plain, 'type': 'AmpOptimWrapper', 'dtype': 'bfloat16', 'loss_scale': {'enabled': False}}


def join_cpu_processes(config: Config) -> None:
    """Starts gloo for the processes torchrun made; mmengine's own start and wrapper need a GPU per process."""
    if config.get('model_wrapper_cfg') is None:
        wrapper = {'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False}
        config.model_wrapper_cfg = {**wrapper, 'find_unused_parameters': config.get('find_unused_parameters', False)}
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')


def train(config: Config, resume: bool | str = False) -> Runner:
    """Trains a prepared config; `resume` takes the last checkpoint of the work dir, or the one it names.

    Raises:
        DataError, BaseFolderError, CheckpointError, ConfigError: before the first iteration, where something is amiss.
    """
    config.resume = bool(resume)
    if isinstance(resume, str):
        config.load_from = resume
    for name in ('train_dataloader', 'val_dataloader'):
        check_data_folders(config.get(name), name)
    check_split(config, 'val_dataloader')
    for step in lq_steps(config.get('train_dataloader')):
        # The default may change; the config in checkpoints and work dir says what this training had.
        step['recipe'] = {**(step.get('recipe') or {}), 'version': step_version(step)}
    runner = Runner.from_cfg(config)
    check_pretrained(runner.model)
    runner.train()
    return runner


def test(
    config: Config,
    checkpoint: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    show: bool = False,
    wait_time: float = 2.0,
) -> dict[str, float]:
    """Tests a checkpoint with a prepared config, writes `metrics.json` into its work dir and returns the metrics.

    Args:
        config: a prepared config.
        checkpoint: the file to load; None tests the model as it is built, if nothing in it is trained.
        out: folder for the predicted label maps (PNG of ids) or restored images; None writes none.
        show_dir: folder for pictures of the predictions; None draws none.
        tta: test-time augmentation, by the config's `tta_model` and `tta_pipeline`.
        show: shows each prediction in a window (segmentation only).
        wait_time: seconds each window stays open.

    Raises:
        ConfigError: a model with trained parameters and no checkpoint, test data of other classes, or `show` without a
            display.
    """
    config.load_from, config.resume = checkpoint, False
    check_data_folders(config.get('test_dataloader'), 'test_dataloader')
    check_split(config, 'test_dataloader')
    record = described_test(config, checkpoint, tta)
    write_outputs(config, out, show_dir)
    if show:
        show_predictions(config, wait_time)
    if tta:
        use_tta(config)
    runner = Runner.from_cfg(config)
    if checkpoint is None and any(parameter.requires_grad for parameter in runner.model.parameters()):
        raise ConfigError(
            f'{config.filename}: its model has trained parameters, but no checkpoint was given. Give the .pth file '
            f'that training wrote: tools/test.py CONFIG CHECKPOINT.'
        )
    metrics = {key: float(value) for key, value in runner.test().items()}
    images = len(runner.test_dataloader.dataset)
    if is_main_process():
        record |= {'images': images, 'protocol': protocol_line(config, images), 'metrics': metrics}
        write_text(Path(config.work_dir) / RESULT, json.dumps(record, indent=2))
    return metrics


def described_test(config: Config, checkpoint: str | None, tta: bool) -> dict[str, Any]:
    """What `metrics.json` holds besides the metrics, as far as it is known before the test."""
    dataset = config.test_dataloader.dataset
    return {
        'kind': 'test',
        'config': str(config.filename),
        'checkpoint': None if checkpoint is None else str(checkpoint),
        'tta': tta,
        'seed': (config.get('randomness') or {}).get('seed'),
        'dataset': dataset.get('type'),
        'data_root': dataset.get('data_root'),
        'data': dataset.get('data_prefix'),
        'recipe_version': recipe_versions(config),
        'mode': (config.model.get('test_cfg') or {}).get('mode'),
        'restorer': config.model.get('restorer'),
        'command': command_line(),
        'device': device_name(),
        'versions': recorded_versions(),
    }


def write_outputs(config: Config, out: str | None, show_dir: str | None) -> None:
    """Has a test write its results into `out` (label maps or restored images) and pictures of them into `show_dir`."""
    if config.test_evaluator.type.endswith('RestorationMetrics'):
        config.test_evaluator = {**config.test_evaluator, 'output_dir': out, 'show_dir': show_dir}
        return
    if out:
        config.test_evaluator = {**config.test_evaluator, 'output_dir': out, 'keep_results': True}
    if show_dir:
        hook = config.default_hooks.get('visualization') or {'type': 'SegVisualizationHook'}
        config.default_hooks.visualization = {**hook, 'draw': True, 'interval': 1}
        config.visualizer = {**config.visualizer, 'save_dir': show_dir}


def show_predictions(config: Config, wait_time: float) -> None:
    """Sets up a window for each prediction, as mmseg's `--show` does.

    Raises:
        ConfigError: there is no display, or the config is a restorer's.
    """
    if config.test_evaluator.type.endswith('RestorationMetrics'):
        raise ConfigError('--show shows segmentations. To see restored images, write them with --show-dir DIR.')
    if matplotlib.get_backend().lower() not in interactive_backends():
        raise ConfigError('--show needs a display, and there is none here. Write the pictures with --show-dir DIR.')
    hook = config.default_hooks.get('visualization') or {'type': 'SegVisualizationHook'}
    config.default_hooks.visualization = {**hook, 'draw': True, 'interval': 1, 'show': True, 'wait_time': wait_time}


def interactive_backends() -> set[str]:
    """Names of matplotlib's backends that open windows, in lower case."""
    return {name.lower() for name in backend_registry.list_builtin(BackendFilter.INTERACTIVE)}


def use_tta(config: Config) -> None:
    """Puts the config's test-time augmentation around its model and test data.

    Raises:
        ConfigError: the config has none.
    """
    if config.get('tta_pipeline') is None or config.get('tta_model') is None:
        raise ConfigError(
            "--tta needs 'tta_pipeline' and 'tta_model' in the config, as in configs/_base_/datasets/*.py."
        )
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    # What is merged are the logits, which RASS else gives away image by image.
    segmentor = config.model.get('segmentor') or config.model
    segmentor.test_cfg = {**(segmentor.get('test_cfg') or {}), 'keep_logits': True}
    config.tta_model.module = config.model
    config.model = config.tta_model
