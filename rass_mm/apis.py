"""Training and testing from a config, for Python programs and the command line."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from rass_mm.config.building import explained, named_parts
from rass_mm.config.settings import check_settings
from rass_mm.datasets.class_checks import check_ignored, check_split
from rass_mm.datasets.classes import has_head
from rass_mm.datasets.identity import data_hash
from rass_mm.datasets.preflight import check_data_folders, check_labels
from rass_mm.datasets.wrappers import leaf_paths
from rass_mm.degradation.versions import lq_steps, step_version
from rass_mm.devices import check_memory
from rass_mm.engine.launchers import check_launcher, connected, is_first_process, join_cpu_processes
from rass_mm.engine.mixed_precision import fitted_precision
from rass_mm.engine.placement import device_name, has_accelerator
from rass_mm.engine.prepared_test import PreparedTestHook, used_preparation
from rass_mm.engine.pretrained import check_pretrained
from rass_mm.engine.ready import Preparation
from rass_mm.engine.records import command_line
from rass_mm.engine.resuming import resume_together
from rass_mm.engine.trackers import drop_trackers, use_trackers
from rass_mm.engine.work_dirs import check_config_copy, check_last_checkpoint, renamed_for_test
from rass_mm.errors import ConfigError
from rass_mm.files.atomic import write_text
from rass_mm.files.hashing import content_hash
from rass_mm.files.locks import held
from rass_mm.protocol import protocol_line, recipe_versions
from rass_mm.segmentation.entry_points import settle
from rass_mm.segmentation.fine_tuning import check_fine_tuning, check_fine_tuning_file
from rass_mm.segmentation.labelled_classes import unlabelled
from rass_mm.segmentation.outputs import name_outputs
from rass_mm.segmentation.testing import show_predictions, use_tta, write_outputs
from rass_mm.versions import recorded_versions

TEST_LOCK = '.rass_mm.test.lock'
"""Lock of the results in a work dir. It is not the lock of a training: its checkpoints can be tested meanwhile."""
BATCH_BYTES = 64
"""Smallest memory per pixel of a training batch in bytes: the image and the first feature maps."""
RESULT = 'metrics.json'
"""File that a test writes to its work dir: metrics, protocol, command, checkpoint, data, recipe, seed and versions.

`test_set` is a hash of the images and labels. `unlabelled_classes` lists the classes without labelled pixels,
which mmseg excludes from its means or counts with a value of 0.
"""


def prepare_config(
    config: Config, launcher: str = 'none', amp: bool = False, work_dir: str | None = None, stem: str = 'run'
) -> Config:
    """Adapts a config to its data set, to this machine and to the command line, in place, and returns it.

    The model and the label checks get the classes of the data set, see `settle`. Mixed precision uses bfloat16 or, on
    machines that do not support it, another precision, see `fitted_precision`. Distributed runs without an accelerator
    use gloo.

    Args:
        config: the config of a training or a test.
        launcher: 'none', or the launcher that started this process, as in mmengine, e.g. 'pytorch'.
        amp: whether to train with mixed precision even if the config does not request it.
        work_dir: folder for logs and checkpoints. None uses that of the config or, by default, `./work_dirs/{stem}`.
        stem: name of the default work dir.

    Raises:
        ConfigError: the config sets other classes than those of its data set or both `fine_tune` and `load_from`, or
            this process was not started by `launcher`.
    """
    check_fine_tuning(config)
    with explained(config):
        settle(config)
    check_launcher(launcher)
    config.launcher = launcher
    config.work_dir = work_dir or config.get('work_dir') or f'./work_dirs/{stem}'
    if config.get('optim_wrapper') is not None:
        config.optim_wrapper = fitted_precision(dict(config.optim_wrapper), amp)
    if launcher == 'pytorch' and not has_accelerator():
        join_cpu_processes(config)
    return config


def train(config: Config, resume: bool | str = False) -> Runner:
    """Trains the model of a config and returns mmengine's runner.

    Args:
        config: the result of `prepare_config`.
        resume: a path resumes from that checkpoint. True, here or in the config, resumes from the last checkpoint in
            the work dir.

    Raises:
        DataError, BaseFolderError, CheckpointError, ConfigError: the data, the base folder, the weights or the config
            are not valid. These errors are raised before the first iteration.
        InstallationError: the package of a tracker is not installed.
        ConnectionLostError: another process of this training has ended or does not answer.
    """
    check_settings(config, 'train')
    check_fine_tuning_file(config)
    use_trackers(config)
    check_batch(config, 'train_dataloader')
    lock = held(config.work_dir) if _is_first(config) else nullcontext()
    order = 'model', 'train_dataloader', 'optim_wrapper'
    with named_parts(config, *order), lock:
        with connected(), explained(config, *order):
            runner = _built(config, resume)
        with connected(begun=True):
            resume_together(runner)
            runner.train()
    return runner


def check_batch(config: Config, name: str) -> None:
    """Raises a ConfigError if a batch of a dataloader does not fit into memory."""
    size = (config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}).get('size') or (1, 1)
    height, width = size if isinstance(size, tuple | list) else (size, size)
    count = config[name].get('batch_size', 1)
    check_memory(count * height * width * BATCH_BYTES, f'{name}.batch_size={count}', f'Set {name}.batch_size lower.')


def _built(config: Config, resume: bool | str) -> Runner:
    """Checks the data of a training and returns its runner."""
    resume = resume or config.get('resume') or False
    if isinstance(resume, str):
        config.load_from = resume
    elif resume and config.get('load_from'):
        # mmengine would take the file of `load_from` for the run to resume.
        raise ConfigError(
            f'load_from is {config.load_from}, but it cannot be combined with resuming. To resume the run in '
            f'{config.work_dir}, add --cfg-options load_from=None. To resume from that file, pass --resume '
            f'{config.load_from}. To start a new run from its weights, do not resume.'
        )
    elif resume:
        check_last_checkpoint(config.work_dir, _is_first(config))
    config.resume = bool(resume)
    check_config_copy(config)
    for name in ('train_dataloader', 'val_dataloader'):
        check_data_folders(config.get(name), name)
        check_labels(config, name)
        check_split(config, name)
        check_ignored(config, name)
    for step in lq_steps(config.get('train_dataloader')):
        # The default may change, so the config in the checkpoints and the work dir records the version in use.
        step['recipe'] = {**(step.get('recipe') or {}), 'version': step_version(step)}
    runner = Runner.from_cfg(config)
    check_pretrained(runner.model, config.get('fine_tune'))
    return runner


def test(
    config: Config,
    checkpoint: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    show: bool = False,
    wait_time: float = 2.0,
    how: Preparation | None = None,
) -> dict[str, float]:
    """Tests a checkpoint, writes `metrics.json` to the work dir and returns the metrics by name.

    Args:
        config: the result of `prepare_config`.
        checkpoint: the file to load; None tests the newly built model, which must have no trainable parameters.
        out: folder for the predicted label maps (PNG files of class ids) or restored images; None writes none.
        show_dir: folder for visualizations of the predictions; None draws none.
        tta: whether to use test-time augmentation, with the config's `tta_model` and `tta_pipeline`.
        show: whether to show each prediction in a window (segmentation only).
        wait_time: seconds for which each window stays open.
        how: how the model is prepared for prediction; None tests the network as it was trained.

    Raises:
        ConfigError: the model has trainable parameters but no checkpoint is given, the test data has other classes, or
            `show` is set without a display.
        DataError: another test writes to the work dir, or another command to `out` or `show_dir`.
    """
    check_settings(config, 'test')
    if checkpoint is None and needs_checkpoint(config):
        raise ConfigError(missing_checkpoint(config, 'rass_mm.apis.test(config, checkpoint)'))
    locks = _test_locks(config, out, show_dir) if _is_first(config) else nullcontext()
    order = 'model', 'test_dataloader', 'test_evaluator'
    with named_parts(config, *order), locks:
        with explained(config, *order):
            runner, record = _built_test(config, checkpoint, out, show_dir, tta, show, wait_time, how)
        metrics = {key: float(value) for key, value in runner.test().items()}
        if is_main_process():
            _write_result(config, runner, record, metrics)
    return metrics


def _write_result(config: Config, runner: Runner, record: dict[str, Any], metrics: dict[str, float]) -> None:
    """Writes `metrics.json`. `record` is the part of it that is known before the test."""
    data = runner.test_dataloader.dataset
    record |= {'images': len(data), 'protocol': protocol_line(config, len(data)), 'metrics': metrics}
    record |= {'prepared': used_preparation(runner)}
    record['checkpoint_hash'] = content_hash(record['checkpoint'] and Path(record['checkpoint']).expanduser())
    record |= {'test_set': data_hash(data), 'unlabelled_classes': unlabelled(runner)}
    write_text(Path(config.work_dir) / RESULT, json.dumps(record, indent=2))


def _is_first(config: Config) -> bool:
    """Returns whether this process holds the locks of the folders. The other processes of the job hold none."""
    return is_first_process(config.get('launcher', 'none'))


@contextmanager
def _test_locks(config: Config, out: str | None, show_dir: str | None) -> Iterator[None]:
    folders = {Path(folder).resolve(): folder for folder in (out, show_dir) if folder}  # they can be the same
    with ExitStack() as stack:
        stack.enter_context(held(config.work_dir, TEST_LOCK))
        for folder in folders.values():
            stack.enter_context(held(folder))
        yield


def _built_test(
    config: Config,
    checkpoint: str | None,
    out: str | None,
    show_dir: str | None,
    tta: bool,
    show: bool,
    wait_time: float,
    how: Preparation | None,
) -> tuple[Runner, dict[str, Any]]:
    """Checks the data of a test and returns its runner and the part of `metrics.json` that is known before the test."""
    config.load_from, config.resume = checkpoint, False
    check_data_folders(config.get('test_dataloader'), 'test_dataloader')
    check_labels(config, 'test_dataloader')
    check_split(config, 'test_dataloader')
    record = described_test(config, checkpoint, tta)
    drop_trackers(config)
    write_outputs(config, out, show_dir)
    if show:
        show_predictions(config, wait_time)
    if tta:
        use_tta(config)
    runner = Runner.from_cfg(renamed_for_test(config))
    if checkpoint is None and any(parameter.requires_grad for parameter in runner.model.parameters()):
        raise ConfigError(missing_checkpoint(config, 'CHECKPOINT'))
    name_outputs(runner, out, show_dir, checkpoint)
    if how is not None:
        runner.register_hook(PreparedTestHook(how))
    return runner, record


def needs_checkpoint(config: Config) -> bool:
    """Checks whether a config alone shows that its model has trainable parameters. The model is not built.

    This is the case for models with a decode head or an auxiliary head and for SCR restorers that are not frozen.
    """
    model = config.model
    return has_head(model) or (str(model.get('type')).endswith('SCRRestorer') and bool(model.get('trainable', True)))


def missing_checkpoint(config: Config, usage: str) -> str:
    """Returns the error message for a test of a model that needs a checkpoint if none was given.

    Args:
        config: the config of the test.
        usage: the call or the option that passes the checkpoint, for the message.
    """
    return (
        f'{config.filename}: the model has trainable parameters, but no checkpoint was given. Pass the .pth file that '
        f'training wrote: {usage}'
    )


def described_test(config: Config, checkpoint: str | None, tta: bool) -> dict[str, Any]:
    """Returns the part of `metrics.json` that is known before the test."""
    parts = [part for _, part in leaf_paths(config.test_dataloader, 'test_dataloader')]
    dataset = parts[0] if len(parts) == 1 else config.test_dataloader.dataset
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
