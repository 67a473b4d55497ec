"""Workarounds for libraries whose versions do not fit together, and the versions that records name.

Everything here probes for a feature instead of comparing version numbers, and does nothing where the feature is there.
"""

import importlib
import importlib.metadata
import importlib.util
import pickle
import sys
import types
from typing import Any

import diffusers.utils.logging
import numpy as np
import torch
import transformers.utils.logging
from mmengine.logging.history_buffer import HistoryBuffer

from rass_mm.version import __version__

RECORDED_PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmsegmentation', 'diffusers', 'peft')


def recorded_versions() -> dict[str, str]:
    """Versions of this package and of those that shape a checkpoint."""
    return {'rass_mm': __version__, **{name: importlib.metadata.version(name) for name in RECORDED_PACKAGES}}


def prepare() -> None:
    """Makes the segmentation stack of mmengine, mmcv, mmseg and mmdet work on the installed torch and numpy."""
    allow_training_state()
    quiet_loading()


def quiet_loading() -> None:
    """Turns off the progress bars diffusers and transformers draw for every small file; logs stay readable."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def allow_training_state() -> None:
    """Lets `torch.load(weights_only=True)` read what mmengine's checkpoints hold besides tensors.

    mmengine calls `torch.load` without a choice, and torch 2.6 made the safe reader the default. The names below are
    the inert containers of mmengine's message hub; none of them runs code on loading.
    """
    core = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray

    def history_method(owner: type, name: str) -> Any:
        # A history buffer pickles its statistics by `getattr(HistoryBuffer, name)`. Allowing the real getattr would let
        # a file reach any attribute of any allowed object; this stand-in gives the public statistics and nothing else.
        if owner is not HistoryBuffer or name.startswith('_'):
            raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')
        return getattr(owner, name)

    safe = [HistoryBuffer, core._reconstruct, core.scalar, np.ndarray, np.dtype, (history_method, 'builtins.getattr')]
    safe += [getattr(np.dtypes, f'{name}DType') for name in ('Float64', 'Float32', 'Int64', 'UInt64', 'Bool')]
    torch.serialization.add_safe_globals(safe)


def prepare_mmagic() -> None:
    """Gives mmagic 1.2 the three names it imports that newer numpy and diffusers no longer have.

    Called by the restoration side only, before its first import of mmagic.
    """
    if not hasattr(np, 'bool8'):
        np.bool8 = np.bool_
    for old, new in {'diffusers.models.unet_2d_condition': 'diffusers.models.unets.unet_2d_condition'}.items():
        if old not in sys.modules and importlib.util.find_spec(old) is None:
            sys.modules[old] = importlib.import_module(new)
    painter = 'diffusers.pipelines.paint_by_example'
    if painter not in sys.modules and importlib.util.find_spec(painter) is None:
        # mmagic names this encoder in one editing model; a placeholder is enough for the import.
        stub = types.ModuleType(painter)
        stub.PaintByExampleImageEncoder = None
        sys.modules[painter] = stub
