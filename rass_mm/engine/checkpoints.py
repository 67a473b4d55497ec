"""Safe loading and atomic writing of local checkpoint files for mmengine.

Both are registered at mmengine's own extension points, so `Runner`, `init_model` and `load_checkpoint` all use them.
"""

import json
import os
from typing import Any

import numpy as np
from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import load_file

from rass_mm.engine.remote import refuse_remote
from rass_mm.errors import CheckpointError
from rass_mm.files.atomic import write_bytes, write_text
from rass_mm.files.tensors import damaged, first_line, read_tensors


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_local(filename: str | os.PathLike, map_location: Any = None, *_: Any, **__: Any) -> Any:
    """Reads a local checkpoint without running any code in it.

    Raises:
        CheckpointError: the file is missing or damaged, or contains Python objects that are not allowed; the message
            names them.
    """
    filename = os.path.expanduser(filename)
    if '://' in filename:
        refuse_remote(filename)
    if not os.path.isfile(filename):
        raise CheckpointError(
            f'Checkpoint {filename} does not exist. Pass the path of a .pth file that training wrote, or of a '
            f'.safetensors file that rass-mm convert wrote.'
        )
    if filename.endswith('.safetensors'):
        return _read_safetensors(filename)
    return read_tensors(filename, map_location)


def _read_safetensors(filename: str) -> dict[str, Any]:
    """Reads a converted checkpoint in mmengine's format; `meta` has what `init_model` and the visualizer require."""
    try:
        state = load_file(filename)
    except Exception as error:  # safetensors has its own error type without a common base class
        raise damaged(filename, first_line(error)) from None
    if '_extra_state' not in state:
        raise CheckpointError(
            f'{filename} is not a checkpoint: it does not record what it was trained on. To use the adapter of a '
            'restorer, set model.start (in a restorer config) or model.backbone.scr_adapter (in a segmentor config), '
            'or pass it to rass-mm restore --adapter.'
        )
    classes = json.loads(bytes(state['_extra_state'].tolist()))['classes']
    # mmseg's visualizer requires a palette; it is drawn as mmseg does for a data set without one.
    palette = np.random.RandomState(42).randint(0, 255, size=(len(classes), 3)).tolist()  # noqa: NPY002
    return {'state_dict': state, 'meta': {'dataset_meta': {'classes': classes, 'palette': palette}}}


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """File backend that writes to a temporary name and renames: a killed save leaves the last checkpoint intact."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Writes bytes atomically."""
        write_bytes(filepath, obj)

    def put_text(self, obj: str, filepath: str | os.PathLike, encoding: str = 'utf-8') -> None:
        """Writes text atomically, always as UTF-8."""
        write_text(filepath, obj)
