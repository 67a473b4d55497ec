"""Workarounds for incompatible versions of mmengine, mmcv, mmseg, mmdet and mmagic.

Each workaround tests for a feature instead of comparing version numbers, and does nothing if the feature is available.
"""

import importlib
import importlib.util
import pickle
import sys
import types
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from rass_mm_cli.families import has_forks


def prepare() -> None:
    """Makes mmengine, mmcv, mmseg and mmdet work with the installed versions of torch and numpy."""
    allow_training_state()
    replace_imaug()


def replace_imaug() -> None:
    """Adds placeholders for imaug, which a fork of mmdet imports for one transform of lane detection.

    imaug itself requires an older numpy and a second OpenCV. Without the placeholders, mmengine cannot look up names in
    mmdet's registries.
    """
    if has_forks() and importlib.util.find_spec('imaug') is None:
        for name in ('imaug', 'imaug.augmenters'):
            sys.modules.setdefault(name, types.ModuleType(name))
        sys.modules['imaug'].augmenters = sys.modules['imaug.augmenters']


def allow_training_state() -> None:
    """Allows `torch.load(weights_only=True)` to read the training state in mmengine's checkpoints.

    mmengine calls `torch.load` without `weights_only`, and torch 2.6 made the safe reader the default. The classes that
    this function allows are the plain containers of mmengine's message hub. None of them runs code when it is loaded.
    """
    core = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray

    def history_method(owner: type, name: str) -> Any:
        # A history buffer pickles its statistics as `getattr(HistoryBuffer, name)`. Allowing the real getattr would let
        # a file access any attribute of any allowed object. This replacement returns only the public statistics.
        if owner is not HistoryBuffer or name.startswith('_'):
            raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')
        return getattr(owner, name)

    safe = [HistoryBuffer, core._reconstruct, core.scalar, np.ndarray, np.dtype, (history_method, 'builtins.getattr')]
    safe += [getattr(np.dtypes, f'{name}DType') for name in ('Float64', 'Float32', 'Int64', 'UInt64', 'Bool')]
    torch.serialization.add_safe_globals(safe)


def prepare_mmagic() -> None:
    """Adds the three names that mmagic 1.2 imports and that newer versions of numpy and diffusers no longer have.

    Only `rass_mm.restoration` calls this function, before it first imports mmagic.
    """
    if not hasattr(np, 'bool8'):
        np.bool8 = np.bool_
    for old, new in {'diffusers.models.unet_2d_condition': 'diffusers.models.unets.unet_2d_condition'}.items():
        if old not in sys.modules and importlib.util.find_spec(old) is None:
            sys.modules[old] = importlib.import_module(new)
    painter = 'diffusers.pipelines.paint_by_example'
    if painter not in sys.modules and importlib.util.find_spec(painter) is None:
        # mmagic refers to this encoder in one editing model. A placeholder is sufficient for the import.
        stub = types.ModuleType(painter)
        stub.PaintByExampleImageEncoder = None
        sys.modules[painter] = stub
