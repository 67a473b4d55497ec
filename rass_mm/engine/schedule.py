"""Hook that applies the schedule of the config to a resumed run, instead of the schedule in the checkpoint.

mmengine's `Runner.resume` restores the schedulers with all their settings. If `max_iters` was increased, for example, a
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
"""Keys of a scheduler's state that are not settings and can differ between the checkpoint and the config."""
Scheduler = Any


@HOOKS.register_module()
class ConfigScheduleHook(Hook):
    """Hook that sets the optimizer of a resumed run to the values that a new run would have at the same iteration.

    This applies to everything that the config sets for the optimizer, such as the learning rate, the weight decay and
    the schedule. If the settings in the checkpoint are the same as in the config, the restored state is not changed.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Any) -> None:
        """Copies the schedulers and parameter groups of the config before a checkpoint replaces them."""
        if not isinstance(runner.optim_wrapper, BaseOptimWrapper):
            return  # a validation or a test
        self.fresh = {
            name: ([_state(each) for each in schedulers], _groups(wrapper))
            for name, wrapper, schedulers in _parts(runner)
        }

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Stores the number of schedulers in the checkpoint, because mmengine ignores surplus ones."""
        stored = checkpoint.get('param_schedulers')
        parts = stored if isinstance(stored, dict) else {'': stored or []}
        self.stored = {name: len(schedulers) for name, schedulers in parts.items()}

    def before_train(self, runner: Any) -> None:
        """Applies the settings of the config if those in the checkpoint differ, and logs a warning.

        Raises:
            ConfigError: the iteration of the checkpoint is after the last iteration of the config, or a scheduler
                cannot be recomputed because it follows a metric.
        """
        if runner.iter == 0:
            return
        if runner.iter > runner.max_iters:
            raise ConfigError(
                f'The checkpoint was saved at iteration {runner.iter}, but the config ends at iteration '
                f'{runner.max_iters}. Set a larger train_cfg.max_iters (or max_epochs), or use another --work-dir.'
            )
        for name, wrapper, schedulers in _parts(runner):
            states, groups = self.fresh[name]
            same_number = self.stored.get(name, 0) == len(schedulers)
            changed = _follow(wrapper, schedulers, states, groups, runner, same_number)
            if changed:
                place = f'optim_wrapper.{name}' if name else 'The schedule'
                print_log(
                    f'{place}: the checkpoint has other settings than the config ({", ".join(changed)}). The run '
                    'continues with the settings of the config.',
                    'current',
                    logging.WARNING,
                )


def _parts(runner: Any) -> Iterator[tuple[str, Any, list[Scheduler]]]:
    """Yields the name ('' if there is only one), the wrapper and the schedulers of each optimizer."""
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
    """Applies the settings of the config if any of the restored settings differ. Returns the names of these settings.

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
            'follows a metric cannot be recomputed. Resume with the config that the run was started with.'
        )
    if changed:
        _replay(wrapper, schedulers, states, groups, runner)
    return sorted(changed)


def _replay(wrapper: Any, schedulers: list[Scheduler], states: list[dict], groups: list[dict], runner: Any) -> None:
    """Sets the optimizer and its schedulers to the state that a new run of the config has at this iteration.

    The schedulers compute each value from the previous one, so they are run from the first iteration. A model can have
    hundreds of parameter groups, so one group represents all groups with the same settings.
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
    """Returns the state of a scheduler in which each list with one value per group is indexed with `places`."""
    per_group = {key for key, value in state.items() if isinstance(value, list) and len(value) == length}
    return {
        key: [value[place] for place in places] if key in per_group else value
        for key, value in state.items()
        if key != 'optimizer'
    }


class _Standing:
    """Stand-in for an optimizer, with parameter groups but without parameters, on which schedulers can be run."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = copy.deepcopy(groups)
        self._global_step = 0

    def step(self) -> None:
        """Does nothing, because there are no parameters. Schedulers require this method."""

    step._with_counter = True  # schedulers warn if the optimizer does not count its steps
