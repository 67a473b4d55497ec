"""Hook that lets a resumed run follow the schedule of its config."""

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import _ParamScheduler
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from rass_mm.errors import ConfigError

PROGRESS = {'last_step', '_global_step', '_last_value', 'verbose'}
"""Attributes of a scheduler that change during training; all others are settings."""


@HOOKS.register_module()
class ResumedScheduleHook(Hook):
    """Gives a resumed run the learning rates that a run from scratch with the same config has.

    mmengine restores schedulers with all settings of the checkpoint, such as the iteration at which a decay ends, and
    ignores those of the config. If they differ, this hook computes the values of the config's schedule up to the
    resumed iteration. Without a difference it does nothing.
    """

    def __init__(self) -> None:
        self.fresh: list[dict[str, Any]] = []
        self.groups: list[list[dict[str, Any]]] = []
        self.stored: list[dict[str, Any]] | None = None

    def before_run(self, runner: Runner) -> None:
        """Records the schedulers and optimizers as the config sets them up."""
        schedulers = list(_schedulers(runner.param_schedulers))
        self.fresh = [dict(scheduler.state_dict()) for scheduler in schedulers]
        self.groups = [_copied(scheduler) for scheduler in schedulers]
        self.stored = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Records the schedulers of the checkpoint to resume."""
        stored = checkpoint.get('param_schedulers')
        if runner._resume and stored is not None:
            self.stored = [part for _, part in _flat(stored)]

    def before_train(self, runner: Runner) -> None:
        """Computes the values of the schedule for a resumed run whose config differs from the checkpoint.

        Raises:
            ConfigError: the schedule depends on scores of earlier validations, so it cannot be computed.
        """
        if self.stored is None or runner.iter == 0:
            return
        differing = _differences(self.stored, self.fresh)
        if not differing:
            return
        schedulers = list(_schedulers(runner.param_schedulers))
        if any(getattr(scheduler, 'need_val_args', False) for scheduler in schedulers):
            raise ConfigError(
                f'The schedule differs from that of the resumed checkpoint ({differing}), and one that depends on '
                'scores cannot be computed for past iterations. Resume with the param_scheduler of the checkpoint, or '
                'start a new run with load_from.'
            )
        print_log(
            f'The schedule differs from that of the checkpoint ({differing}). The run follows its config, as if it had '
            'been trained with it from the start.',
            'current',
        )
        self._replay(runner, schedulers)

    def _replay(self, runner: Runner, schedulers: list[_ParamScheduler]) -> None:
        for scheduler, state, groups in zip(schedulers, self.fresh, self.groups, strict=True):
            scheduler.load_state_dict(state)
            for group, values in zip(scheduler.optimizer.param_groups, groups, strict=True):
                group.update(values)
        loop = runner.train_loop
        epoch = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else None
        for iteration in range(1, runner.iter + 1):
            ends_epoch = epoch is not None and iteration % epoch == 0
            for scheduler in schedulers:
                if not scheduler.by_epoch or ends_epoch:
                    scheduler.step()


def _schedulers(built: Any) -> Iterator[_ParamScheduler]:
    """Yields the schedulers of a runner: a list, or lists by the names of several optimizers.

    In tests, a runner has only their configs; these are left out.
    """
    return (part for _, part in _flat(built or []) if isinstance(part, _ParamScheduler))


def _flat(parts: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(parts, dict):
        for name, inner in parts.items():
            yield from ((f'{name}.{key}', part) for key, part in _flat(inner))
    else:
        yield from ((str(number), part) for number, part in enumerate(parts))


def _copied(scheduler: _ParamScheduler) -> list[dict[str, Any]]:
    """Returns the scheduled value of each parameter group and its initial value."""
    names = (scheduler.param_name, f'initial_{scheduler.param_name}')
    return [{name: group[name] for name in names} for group in scheduler.optimizer.param_groups]


def _differences(stored: list[dict[str, Any]], fresh: list[dict[str, Any]]) -> str:
    """Describes the settings that differ; empty if there are none."""
    if len(stored) != len(fresh):
        return f'{len(stored)} schedulers in the checkpoint, {len(fresh)} in the config'
    parts = []
    for number, (old, new) in enumerate(zip(stored, fresh, strict=True)):
        for key in sorted((old.keys() | new.keys()) - PROGRESS):
            if old.get(key) != new.get(key):
                parts.append(
                    f'param_scheduler.{number}.{key}: {old.get(key)} in the checkpoint, {new.get(key)} in the config'
                )
    return '; '.join(parts)
