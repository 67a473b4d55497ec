"""Hook that checks whether a checkpoint fits the model and, in a resumed run, the state of training."""

import logging
from collections.abc import Mapping
from typing import Any, NotRequired

import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import HOOKS
from pydantic import NonNegativeInt, with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from rass_mm.config import config_from_checkpoint
from rass_mm.engine.structure import Meta, check_finite, check_weights, weights_of
from rass_mm.engine.trained_state import (
    OWN_CONFIG,
    PROVENANCE,
    TrainedStateMixin,
    check_tensors,
    is_record,
    read_provenance,
    tensors_of,
)
from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.files.schemas import ALLOWED, checked
from rass_mm.segmentation.restore_then_segment import RestoreThenSegment

RESUMED = (
    'It cannot be resumed. Resume from another checkpoint of the run, or start a new run from its weights: '
    '--cfg-options load_from=CHECKPOINT.'
)
FEW = 6
"""Number of names in a warning."""


@with_config(ALLOWED)
class Progress(Meta):
    """Entry `meta` of a checkpoint of a run."""

    epoch: NonNegativeInt
    iter: NonNegativeInt


@with_config(ALLOWED)
class Hub(TypedDict):
    """Entry `message_hub`, the logged values of a run."""

    log_scalars: dict[str, Any]
    runtime_info: dict[str, Any]
    resumed_keys: dict[str, Any]


@with_config(ALLOWED)
class Optimizer(TypedDict):
    """State of one optimizer."""

    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


@with_config(ALLOWED)
class Training(TypedDict):
    """Entries of a checkpoint with which a run is resumed. Several optimizers have a name each."""

    meta: Progress
    message_hub: Hub
    optimizer: NotRequired[dict[str, Any]]
    param_schedulers: NotRequired[list[dict[str, Any]] | dict[str, list[dict[str, Any]]]]


@HOOKS.register_module()
class FittingCheckpointHook(Hook):
    """Hook that raises an error if a checkpoint does not fit, where mmengine only logs it or fails later.

    A test and a resumed run need all tensors of the model. A new run may start from some of them (`load_from`), but
    from at least one. Further tensors in the checkpoint of a test are
    not loaded, and a warning names them, see `surplus_tensors`.
    """

    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Checks the tensors and, in a resumed run, the state of the optimizers, the schedule and the log.

        Raises:
            CheckpointError: something does not fit. The message contains the keys.
        """
        file, resumed = str(runner._load_from or 'The checkpoint'), bool(runner._resume)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model = model.module if isinstance(model, BaseTTAModel) else model
        tested = not resumed and not isinstance(runner.optim_wrapper, BaseOptimWrapper)
        state = weights_of(checkpoint, file)
        surplus = surplus_tensors(model, state) if tested else []
        given = {name: value for name, value in state.items() if name not in surplus}
        check_model(model, given, file, whole=resumed or tested)
        if surplus:
            warn_of_surplus(surplus, file)
            for name in surplus:
                del state[name]
        averaged = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        if averaged and not resumed:
            # EMAHook reads this entry only, and does not know the prefix of a wrapped model.
            checkpoint['state_dict'] = {_plain(name): value for name, value in state.items()}
        if resumed:
            check_training(checkpoint, file)
            if averaged and 'ema_state_dict' in checkpoint:
                check_averages(checkpoint, file, strict=averaged[0].strict_load)
            _warn_of_batch_size(runner, checkpoint, file)

    def before_train(self, runner: Any) -> None:
        """Checks that the state of each optimizer has the settings of its type.

        Raises:
            CheckpointError: the checkpoint of a resumed run is of an optimizer of another type.
        """
        wrapper = runner.optim_wrapper
        for part in wrapper.values() if hasattr(wrapper, 'optim_wrappers') else [wrapper]:
            optimizer = part.optimizer
            missing = [
                name for name in optimizer.defaults if any(name not in group for group in optimizer.param_groups)
            ]
            if missing:
                raise CheckpointError(
                    f'{runner._load_from or "The checkpoint"} has the state of another optimizer than '
                    f'{type(optimizer).__name__}: {missing[0]} is missing. Set optim_wrapper.optimizer to the one that '
                    'the run was started with. ' + RESUMED
                )


def surplus_tensors(model: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """Returns the names of the tensors of a checkpoint that a model has no place for and that a test does not need.

    An example is an auxiliary head that the config of the test lacks. Of a model that records its base, only the
    tensors of an auxiliary head are returned: other tensors show that it was trained with other settings.

    Args:
        model: the model to load into.
        state: weights of the checkpoint.
    """
    inner = model.segmentor if isinstance(model, RestoreThenSegment) else model
    own, plain = inner.state_dict().keys(), not isinstance(inner, TrainedStateMixin)
    recorded = tuple(f'{name}.' for name, part in inner.named_modules() if name and isinstance(part, TrainedStateMixin))
    further = [name for name, value in state.items() if isinstance(value, Tensor) and _plain(name) not in own]
    allowed = '' if plain else 'auxiliary_head.'
    return sorted(
        name
        for name in further
        if _plain(name).startswith(allowed)
        and not _plain(name).startswith(recorded)
        and name.rpartition('.')[2] != PROVENANCE
    )


def warn_of_surplus(names: list[str], file: str) -> None:
    """Logs a warning with the number and the first names of tensors that are not loaded."""
    listed = ', '.join(names[:FEW]) + (', ...' if len(names) > FEW else '')
    count = f'{len(names)} tensors' if len(names) > 1 else '1 tensor'
    print_log(
        f'{file} has {count} that the model has no place for and that are not loaded: {listed}.',
        'current',
        logging.WARNING,
    )


def _plain(name: str) -> str:
    return name.removeprefix('module.')


def check_model(model: nn.Module, state: Mapping[str, Any], file: str, whole: bool) -> None:
    """Checks the names, shapes and types of the tensors in a checkpoint. Models with a record check them themselves.

    Args:
        model: the model to load into.
        state: weights of the checkpoint.
        file: its path, for the message.
        whole: whether all tensors of the model are needed.

    Raises:
        CheckpointError: tensors are missing or unknown, or differ in shape or type.
    """
    if isinstance(model, TrainedStateMixin | RestoreThenSegment):
        if isinstance(model, TrainedStateMixin) and PROVENANCE in state:
            read_provenance(state[PROVENANCE], file)
        return
    own_records = any(isinstance(part, TrainedStateMixin) for part in model.modules())
    if is_record(state.get(PROVENANCE)) and not own_records:
        raise CheckpointError(
            f'{file} is the checkpoint of a diffusion model, but the model of the config is a {type(model).__name__} '
            f'without one; nothing was loaded. {OWN_CONFIG}'
        )
    given = {_plain(name): value for name, value in tensors_of(state).items() if isinstance(value, Tensor)}
    own = tensors_of(model.state_dict())
    known = given.keys() & own.keys()
    if whole:
        check_tensors(given, needed(own, given), f'{file} does not fit the model; nothing was loaded')
    elif not known and own:
        check_tensors(given, own, f'{file} has none of the tensors of the model; nothing was loaded')
    else:
        same = {name: given[name] for name in known if given[name].shape == own[name].shape}
        check_tensors(same, {name: own[name] for name in same}, f'{file} does not fit the model; nothing was loaded')


def needed(own: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the tensors of a model that a checkpoint must have: all, except counts of batches."""
    return {name: value for name, value in own.items() if name in given or not name.endswith('num_batches_tracked')}


def check_training(checkpoint: Mapping[str, Any], file: str) -> None:
    """Checks the entries of a checkpoint with which a run is resumed.

    Raises:
        CheckpointError: an entry is missing, has another type, or contains NaN or infinity.
    """
    checked(dict(checkpoint), Training, file, RESUMED, CheckpointError)
    state = checkpoint.get('optimizer') or {}
    for name, part in {'': state}.items() if 'param_groups' in state else state.items():
        place = f'{file}, optimizer {name}'.rstrip()
        if isinstance(part, Mapping):  # mmengine's wrappers store other values beside the optimizers
            checked(dict(part), Optimizer, place, RESUMED, CheckpointError)
            for index, values in part['state'].items():
                check_finite({f'{key} of parameter {index}': value for key, value in values.items()}, place)


def check_averages(checkpoint: Mapping[str, Any], file: str, strict: bool = True) -> None:
    """Checks the entry `ema_state_dict`, whose tensors mmengine exchanges with those of `state_dict`.

    Args:
        checkpoint: content of the file.
        file: its path, for the message.
        strict: whether all tensors of `state_dict` must be in it.

    Raises:
        CheckpointError: the entry is not a dict of tensors, contains NaN or infinity, or has other names, shapes or
            types than `state_dict`.
    """
    averages, place = checkpoint['ema_state_dict'], f'{file}, entry ema_state_dict'
    check_weights(averages, place)
    check_finite(averages, place)
    own = {f'module.{name}': value for name, value in tensors_of(checkpoint.get('state_dict') or {}).items()}
    own, given = {**own, 'steps': torch.tensor(0)}, tensors_of(averages)
    own = own if strict else {name: value for name, value in own.items() if name in given}
    check_tensors(given, own, f'{place} does not fit state_dict; nothing was loaded', RESUMED)


def _warn_of_batch_size(runner: Any, checkpoint: dict, file: str) -> None:
    try:
        old: Config = config_from_checkpoint(checkpoint, file)
    except ConfigError:
        return
    before = (old.get('train_dataloader') or {}).get('batch_size')
    now = (runner.cfg.get('train_dataloader') or {}).get('batch_size')
    if before != now and None not in (before, now):
        print_log(
            f'{file} was written with train_dataloader.batch_size={before}, but the config has {now}. The run '
            'continues with other batches than before.',
            'current',
            logging.WARNING,
        )
