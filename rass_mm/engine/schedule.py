"""Hook with which a resumed run follows the schedule of its config instead of the stored one.

mmengine's `Runner.resume` restores the schedulers with all their settings. With a longer `max_iters`, for example, a
polynomial decay that has ended would keep the learning rate at 0.
"""

import copy
import logging
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import HOOKS

from rass_mm.errors import ConfigError

MOVING = ('last_step', '_global_step', '_last_value', 'verbose')
"""Attributes of a scheduler that change during training."""
Scheduler = Any


@HOOKS.register_module()
class ConfigScheduleHook(Hook):
    """Hook that gives a resumed run the values that a fresh run of its config would have at this iteration.

    This applies to everything that the config sets for the optimizer (learning rate, weight decay, schedule). If the
    stored settings are the same, the stored state is used unchanged.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Any) -> None:
        """Remembers the schedulers and parameter groups of the config, before a checkpoint replaces them."""
        if not isinstance(runner.optim_wrapper, BaseOptimWrapper):
            return  # a validation or a test
        self.fresh = {
            name: ([_state(each) for each in schedulers], _groups(wrapper))
            for name, wrapper, schedulers in _parts(runner)
        }

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Remembers the number of stored schedulers, of which mmengine ignores those that the config lacks."""
        stored = checkpoint.get('param_schedulers')
        parts = stored if isinstance(stored, dict) else {'': stored or []}
        self.stored = {name: len(schedulers) for name, schedulers in parts.items()}

    def before_train(self, runner: Any) -> None:
        """Compares the restored state with the config after a checkpoint was loaded.

        Raises:
            ConfigError: the checkpoint is beyond the end of the config.
        """
        if runner.iter == 0:
            return
        if runner.iter > runner.max_iters:
            raise ConfigError(
                f'The checkpoint was saved at iteration {runner.iter}, but the config ends at iteration '
                f'{runner.max_iters}. Set a larger train_cfg.max_iters (or max_epochs), or train in another --work-dir.'
            )
        for name, wrapper, schedulers in _parts(runner):
            states, groups = self.fresh[name]
            same_number = self.stored.get(name, 0) == len(schedulers)
            changed = _follow(wrapper, schedulers, states, groups, runner, same_number)
            if changed:
                place = f'optim_wrapper.{name}' if name else 'The schedule'
                print_log(
                    f'{place}: the checkpoint has other settings than the config ({", ".join(changed)}). The run '
                    'continues with those of the config.',
                    'current',
                    logging.WARNING,
                )


def _parts(runner: Any) -> Iterator[tuple[str, Any, list[Scheduler]]]:
    """Yields each optimizer with its name ('' for a single one) and its schedulers."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):
        for name, wrapper in runner.optim_wrapper.items():
            yield name, wrapper, schedulers.get(name) or []
    elif hasattr(runner.optim_wrapper, 'optim_wrappers'):  # several optimizers without a schedule
        for name, wrapper in runner.optim_wrapper.items():
            yield name, wrapper, []
    else:
        yield '', runner.optim_wrapper, schedulers


def _state(scheduler: Scheduler) -> dict[str, Any]:
    return copy.deepcopy(scheduler.state_dict())


def _groups(wrapper: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in group.items() if key != 'params'} for group in wrapper.param_groups]


def _follow(
    wrapper: Any, schedulers: list[Scheduler], states: list[dict], groups: list[dict], runner: Any, same_number: bool
) -> list[str]:
    """Sets the values of the config where the restored ones differ, and returns the names of these settings.

    Raises:
        ConfigError: a scheduler follows a metric and cannot be recomputed.
    """
    scheduled = {scheduler.param_name for scheduler in schedulers}
    changed = set() if same_number else {'schedulers'}
    for scheduler, state in zip(schedulers, states, strict=True):
        own = scheduler.state_dict()
        changed |= {key for key in own.keys() | state.keys() if key not in MOVING and own.get(key) != state.get(key)}
        if own['_global_step'] != (runner.epoch if scheduler.by_epoch else runner.iter):
            changed.add('schedulers')
    for group, given in zip(wrapper.param_groups, groups, strict=True):
        changed |= {key for key in given if key not in scheduled and group.get(key) != given[key]}
    if changed and any(getattr(scheduler, 'need_val_args', False) for scheduler in schedulers):
        raise ConfigError(
            f'The checkpoint has other settings than the config ({", ".join(sorted(changed))}), and a scheduler that '
            'follows a metric cannot be recomputed. Resume with the config of the run.'
        )
    if changed:
        _replay(wrapper, schedulers, states, groups, runner)
    return sorted(changed)


def _replay(wrapper: Any, schedulers: list[Scheduler], states: list[dict], groups: list[dict], runner: Any) -> None:
    """Sets optimizer and schedulers to the state that a fresh run of the config has at this iteration.

    The schedulers compute each value from the one before, so they are run from the start, on one group for all groups
    with the same settings, because a model can have hundreds of groups.
    """
    kinds = [repr(sorted(group.items(), key=lambda item: item[0])) for group in groups]
    firsts = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    places = [firsts.index(kinds.index(kind)) for kind in kinds]
    standing = _Standing([groups[first] for first in firsts])
    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(_taken(copy.deepcopy(state), firsts, len(groups)))
        scheduler.optimizer = standing
    length = len(runner.train_dataloader) if runner.epoch else None
    for iteration in range(1, runner.iter + 1):
        for scheduler in schedulers:
            if not scheduler.by_epoch or (length and iteration % length == 0):
                scheduler.step()
    for scheduler in schedulers:
        scheduler.load_state_dict(_taken(scheduler.state_dict(), places, len(firsts)))
        scheduler.optimizer = wrapper
    for group, place in zip(wrapper.param_groups, places, strict=True):
        group.update(standing.param_groups[place])


def _taken(state: dict[str, Any], places: list[int], length: int) -> dict[str, Any]:
    """Returns the state of a scheduler with its lists of one value per group reordered to `places`."""
    per_group = {key for key, value in state.items() if isinstance(value, list) and len(value) == length}
    return {
        key: [value[place] for place in places] if key in per_group else value
        for key, value in state.items()
        if key != 'optimizer'
    }


class _Standing:
    """Groups of an optimizer without parameters, which stand for those of the real one."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = copy.deepcopy(groups)
        self._global_step = 0

    def step(self) -> None:
        """Does nothing."""

    step._with_counter = True  # schedulers warn if the optimizer does not count its steps
