"""Mixed precision of a training, adapted to the precisions that this machine supports."""

import logging
from typing import Any

import torch
from mmengine.device import is_cuda_available
from mmengine.logging import print_log

from rass_mm.engine.placement import has_accelerator


def fitted_precision(wrapper: dict[str, Any], amp: bool = False) -> dict[str, Any]:
    """Returns an `optim_wrapper` config with a precision that this machine supports.

    Mixed precision uses bfloat16, unless the config sets another `dtype`. If bfloat16 is not supported, float16 or
    float32 is used and a warning is logged. If the config contains one wrapper per optimizer, as for SCR, each of them
    is adapted separately.

    Args:
        wrapper: the `optim_wrapper` config.
        amp: whether to use mixed precision even if the config does not request it.
    """
    if 'optimizer' not in wrapper:
        parts = {key: fitted_precision(dict(part), amp) for key, part in wrapper.items() if isinstance(part, dict)}
        return {**wrapper, **parts}
    if not amp and wrapper.get('type') != 'AmpOptimWrapper':
        return wrapper
    plain = {key: value for key, value in wrapper.items() if key not in ('type', 'dtype', 'loss_scale')}
    if not has_accelerator():
        print_log('No accelerator found. Training uses float32 instead of mixed precision.', 'current', logging.WARNING)
        return {**plain, 'type': 'OptimWrapper'}
    if wrapper.get('type') == 'AmpOptimWrapper' and wrapper.get('dtype') not in (None, 'bfloat16'):
        return wrapper  # the config's own choice
    if is_cuda_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        print_log('This GPU does not support bfloat16. float16 with loss scaling is used.', 'current', logging.WARNING)
        return {**plain, 'type': 'AmpOptimWrapper', 'dtype': 'float16', 'loss_scale': 'dynamic'}
    # bfloat16 has the range of float32, so there is no loss to scale.
    return {**plain, 'type': 'AmpOptimWrapper', 'dtype': 'bfloat16', 'loss_scale': {'enabled': False}}
