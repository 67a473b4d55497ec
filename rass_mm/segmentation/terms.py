"""Hook that records licences and versions in the checkpoints of a training."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from rass_mm.diffusion.config_terms import config_terms
from rass_mm.versions import recorded_versions

TERMS = 'terms'
"""Key in the `meta` of a checkpoint."""


@HOOKS.register_module()
class TermsHook(Hook):
    """Hook that writes `terms` and `versions` to the `meta` of each checkpoint.

    The terms are those of the base, the adapters and the training data in the config, and of checkpoints that the
    training started from or resumed, see `rass_mm_cli.licences`.
    """

    def __init__(self) -> None:
        self.terms: list[dict[str, Any]] | None = None
        self.loaded: list[Any] = []

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Keeps the terms of a checkpoint that is loaded."""
        meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
        if isinstance(meta, dict):
            self.loaded.append(meta.get(TERMS))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Adds the terms and the versions."""
        if self.terms is None:
            self.terms = config_terms(runner.cfg, *self.loaded)
        checkpoint['meta'] |= {TERMS: self.terms, 'versions': recorded_versions()}
