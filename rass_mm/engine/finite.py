"""Hook that stops training if a loss or a weight is NaN or infinite, so that such weights are not saved."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MessageHub
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch import Tensor

from rass_mm.engine.structure import is_finite
from rass_mm.errors import TrainingError

REMEDY = (
    'Lower the learning rate, set optim_wrapper.clip_grad, train in bfloat16 or float32 instead of float16, and check '
    'the images and labels of this batch.'
)


@HOOKS.register_module()
class FiniteTrainingHook(Hook):
    """Hook that stops training with an error if a loss or a weight is not finite.

    A gradient can overflow although its loss is finite. The weights are therefore checked before each validation and
    each checkpoint, so that a checkpoint with finite weights is never replaced by one with NaN or infinity.
    """

    priority = 'ABOVE_NORMAL'  # before the hooks that log, average and save

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Checks the losses of an iteration. If a checkpoint is due, also checks the weights.

        Raises:
            TrainingError: a loss or a weight is not finite.
        """
        check_losses({name: value for name, value in (outputs or {}).items() if 'loss' in name})
        if any(_saves_now(hook, runner) for hook in runner.hooks):
            self._check(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """Checks the weights at the end of an epoch."""
        self._check(runner)

    def before_val_epoch(self, runner: Any) -> None:
        """Checks the weights before a validation, which can replace the best checkpoint."""
        self._check(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Checks all weights of a checkpoint before it is saved."""
        check_weights(checkpoint['state_dict'])

    def _check(self, runner: Any) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_weights({name: value for name, value in model.named_parameters() if value.requires_grad})


def check_losses(losses: Mapping[str, Any]) -> None:
    """Raises a `TrainingError` if a loss is not finite. The message names the losses and the last checkpoint.

    Args:
        losses: name of a loss -> number or tensor with one element. Other values are ignored.
    """
    given = {name: value for name, value in losses.items() if isinstance(value, Tensor) and value.numel() == 1}
    numbers = dict(zip(given, read(list(given.values())), strict=True))
    numbers |= {name: float(value) for name, value in losses.items() if isinstance(value, int | float)}
    if not all(map(math.isfinite, numbers.values())):
        shown = ', '.join(f'{name} {value:.4g}' for name, value in numbers.items())
        raise TrainingError(f'{_place()}: the loss is not finite ({shown}). {_last()} {REMEDY}')


def read(values: Sequence[Tensor]) -> list[float]:
    """Returns tensors with one element as numbers. They are read at once, as each read waits for the accelerator."""
    if not values:
        return []
    return torch.stack([value.detach().float().reshape(()).to(values[0].device) for value in values]).tolist()


def check_weights(state: Mapping[str, Any]) -> None:
    """Raises a `TrainingError` if a floating-point tensor of a state dict is not finite, see `is_finite`."""
    values = {name: value for name, value in state.items() if isinstance(value, Tensor) and value.is_floating_point()}
    wrong = [name for name, value in values.items() if not is_finite(name, value)]
    if wrong:
        raise TrainingError(
            f'{_place()}: {len(wrong)} of {len(values)} tensors contain NaN or infinity, e.g. {wrong[0]}. They are '
            f'not saved. {_last()} {REMEDY}'
        )


def _saves_now(hook: Hook, runner: Any) -> bool:
    if not isinstance(hook, CheckpointHook) or hook.by_epoch:
        return False
    return hook.every_n_train_iters(runner, hook.interval, hook.save_begin) or hook.is_last_train_iter(runner)


def _place() -> str:
    iteration = MessageHub.get_current_instance().get_info('iter')
    return 'Training stopped' if iteration is None else f'Training stopped in iteration {iteration + 1}'


def _last() -> str:
    last = MessageHub.get_current_instance().get_info('last_ckpt')
    return f'The last checkpoint is {last}.' if last else 'No checkpoint has been written yet.'
