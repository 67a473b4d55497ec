"""Arguments that mmengine's classes accept when they are built, and only pass on when they run."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from rass_mm.config.names import suggestion

CLIPS = {'norm': clip_grad_norm_, 'value': clip_grad_value_}
PASSED = {'self', 'parameters', 'filename'}
"""Arguments that mmengine itself passes."""


def late_fault(kind: type, settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns the key of a wrong argument and what is wrong with it, or None.

    Args:
        kind: the class that will be built. Only classes of mmengine are checked.
        settings: its arguments.
    """
    if not kind.__module__.startswith('mmengine.'):
        return None
    if kind is CheckpointHook:
        given, prefix = settings, ''
        known = {*_names(CheckpointHook.__init__), *_names(Runner.save_checkpoint)}
    elif issubclass(kind, OptimWrapper) and isinstance(settings.get('clip_grad'), Mapping):
        given, prefix = settings['clip_grad'], 'clip_grad.'
        function = CLIPS.get(given.get('type', 'norm'))
        known = {'type', *_names(function)} if function else set(given)
    else:
        return None
    wrong = next((key for key in given if key not in known), None)
    return wrong and (f'{prefix}{wrong}', f'is not a setting of {kind.__name__}. {suggestion(wrong, known)}')


def _names(function: Any) -> set[str]:
    found = inspect.signature(function).parameters.values()
    return {one.name for one in found if one.kind is not one.VAR_KEYWORD} - PASSED
