"""Hook that tests a prepared copy of the model."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from rass_mm.engine.ready import Preparation, is_changed, prepare, sharing_copy


class PreparedTestHook(Hook):
    """Hook that replaces the model by a prepared copy during a test, see `rass_mm.engine.ready.prepare`.

    The copy shares all tensors that the preparation does not change.

    Args:
        how: the settings.
    """

    priority = 'VERY_LOW'  # after averaged weights are in the model

    def __init__(self, how: Preparation) -> None:
        self.how = how
        self.plain: Any = None

    def before_test_epoch(self, runner: Runner) -> None:
        """Replaces the model."""
        wrapped = is_model_wrapper(runner.model)
        model = runner.model.module if wrapped else runner.model
        if not is_changed(model, self.how):
            return
        self.plain = model
        _put(runner, prepare(sharing_copy(model), self.how))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Puts the model back."""
        if self.plain is not None:
            _put(runner, self.plain)
            self.plain = None


def _put(runner: Runner, model: Any) -> None:
    if is_model_wrapper(runner.model):
        runner.model.module = model
    else:
        runner.model = model
