"""Hook that stops a training run at the first loss or weight that is NaN or infinite."""

import math
from numbers import Number
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint
from torch import Tensor

from rass_mm.errors import TrainingError

ADVICE = (
    'Lower the learning rate (optim_wrapper.optimizer.lr), clip the gradients '
    '(optim_wrapper.clip_grad.max_norm=1.0), or check the data with rass-mm check-data.'
)


@HOOKS.register_module()
class FiniteTrainingHook(Hook):
    """Stops training at a loss that is NaN or infinite, and never saves or validates weights that are.

    One optimizer step with such a loss makes all weights NaN. mmengine then continues to train, and can save the result
    as the best checkpoint.
    """

    priority = 'VERY_HIGH'  # before the hooks that log and save

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Checks the losses of an iteration.

        Raises:
            TrainingError: a loss is NaN or infinite.
        """
        for name, value in (outputs or {}).items():
            if 'loss' in name and not _finite(value):
                raise TrainingError(
                    f'{name} is {float(value)} in iteration {runner.iter + 1}, so training stopped. '
                    f'{_kept(runner)} {ADVICE}'
                )

    def before_val_epoch(self, runner: Runner) -> None:
        """Checks the weights before a validation, whose scores would be those of a broken model."""
        if runner.iter > 0:
            self._check(runner, dict(runner.model.named_parameters()))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Checks the weights before a checkpoint is written."""
        self._check(runner, checkpoint['state_dict'])

    def _check(self, runner: Runner, tensors: dict[str, Tensor]) -> None:
        broken = [name for name, value in tensors.items() if not _finite(value)]
        if broken:
            raise TrainingError(
                f'{len(broken)} of {len(tensors)} weights are NaN or infinite after iteration {runner.iter}, e.g. '
                f'{broken[0]}, so training stopped and they were not saved. {_kept(runner)} {ADVICE}'
            )


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    return not isinstance(value, Number) or math.isfinite(value)


def _kept(runner: Runner) -> str:
    last = find_latest_checkpoint(runner.work_dir)
    return f'The last checkpoint is {last}.' if last else 'No checkpoint was written.'
