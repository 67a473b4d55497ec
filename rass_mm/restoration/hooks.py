"""Hook that writes the adapter of a restorer during training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmagic.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from rass_mm.degradation.versions import lq_steps, step_version
from rass_mm.diffusion.config_terms import config_terms
from rass_mm.engine.finite import check_weights
from rass_mm.versions import recorded_versions

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
        self.terms: list[dict[str, Any]] | None = None
        self.loaded: list[Any] = []

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Keeps the licences of a checkpoint that the training starts from."""
        self.loaded.append((checkpoint.get('meta') or {}).get('terms'))

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
            model.save_adapter(Path(runner.work_dir) / ADAPTER, self._origin(runner.cfg))

    def _origin(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the licences, the recipe version and the versions of packages for the header of the adapter."""
        if self.terms is None:
            self.terms = config_terms(config, *self.loaded)
        version = next((step_version(step) for step in lq_steps(config.get('train_dataloader'))), None)
        return {'terms': self.terms, 'recipe_version': version, 'versions': recorded_versions()}
