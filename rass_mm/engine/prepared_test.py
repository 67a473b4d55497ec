"""Hook that tests a prepared copy of the model."""

from dataclasses import asdict
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from rass_mm.engine.ready import PREPARED, Preparation, is_changed, prepare, sharing_copy


class PreparedTestHook(Hook):
    """Hook that replaces the model by a prepared copy during a test, see `rass_mm.engine.ready.prepare`.

    The copy shares all tensors that the preparation does not change. After the test, `used` contains the settings of
    the copy, or None if the preparation does not change the model, so that the model itself was tested.

    Args:
        how: the settings.
    """

    priority = 'VERY_LOW'  # after averaged weights are in the model

    def __init__(self, how: Preparation) -> None:
        self.how = how
        self.plain: Any = None
        self.used: Preparation | None = None

    def before_test_epoch(self, runner: Runner) -> None:
        """Replaces the model."""
        wrapped = is_model_wrapper(runner.model)
        model = runner.model.module if wrapped else runner.model
        if not is_changed(model, self.how):
            return
        self.plain = model
        ready = prepare(sharing_copy(model), self.how)
        self.used = getattr(ready, PREPARED)
        _put(runner, ready)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Puts the model back."""
        if self.plain is not None:
            _put(runner, self.plain)
            self.plain = None


def used_preparation(runner: Runner) -> dict[str, Any] | None:
    """Returns the settings of the prepared model of a test, or None if the network was tested as it was trained."""
    used = next((hook.used for hook in runner.hooks if isinstance(hook, PreparedTestHook)), None)
    return asdict(used) if used else None


def _put(runner: Runner, model: Any) -> None:
    if is_model_wrapper(runner.model):
        runner.model.module = model
    else:
        runner.model = model
