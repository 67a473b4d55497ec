"""Hook that writes the adapter of a restorer during training."""

from pathlib import Path
from typing import Any

from mmagic.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from rass_mm.engine.finite import check_weights

ADAPTER = 'scr_adapter.safetensors'


@HOOKS.register_module()
class SaveAdapterHook(Hook):
    """Hook that writes `scr_adapter.safetensors` to the work dir every `interval` iterations and after the last one.

    Args:
        interval: number of iterations between writes.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 1000) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Writes the adapter if it is due after this iteration.

        Raises:
            TrainingError: a trained tensor contains NaN or infinity.
        """
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._write(runner)

    def _write(self, runner: Any) -> None:
        if runner.rank == 0:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            check_weights({name: value for name, value in model.named_parameters() if value.requires_grad})
            model.save_adapter(Path(runner.work_dir) / ADAPTER)
