"""How mmengine reads and writes local checkpoint files: safely and in one piece.

Both are registered under mmengine's own extension points, so `Runner`, `init_model` and `load_checkpoint` all use them.
"""

import json
import os
from typing import Any

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
        CheckpointError: no such file, damaged, or it holds Python objects that are not allowed; the message names them.
    """
    filename = os.path.expanduser(filename)
    if '://' in filename:
        refuse_remote(filename)
    if not os.path.isfile(filename):
        raise CheckpointError(
            f'Checkpoint {filename} does not exist. Give the path of a .pth file that training wrote, or of a '
            f'.safetensors file that rass-mm convert wrote.'
        )
    if filename.endswith('.safetensors'):
        return _read_safetensors(filename)
    return read_tensors(filename, map_location)


def _read_safetensors(filename: str) -> dict[str, Any]:
    """A converted checkpoint in mmengine's form; `meta` has the class names, which mmseg's `init_model` asks for."""
    try:
        state = load_file(filename)
    except Exception as error:  # safetensors has one error type of its own, outside any common base class
        raise damaged(filename, first_line(error)) from None
    if '_extra_state' not in state:
        raise CheckpointError(
            f"{filename} is no checkpoint: it does not say what it was trained on. A restorer's adapter is given as "
            'model.start (a restorer) or model.backbone.scr_adapter (a segmentor), or to rass-mm restore --adapter.'
        )
    classes = json.loads(bytes(state['_extra_state'].tolist()))['classes']
    return {'state_dict': state, 'meta': {'dataset_meta': {'classes': classes}}}


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """Local files written under a temporary name and renamed: a kill while saving leaves the last checkpoint whole."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Writes bytes in one step."""
        write_bytes(filepath, obj)

    def put_text(self, obj: str, filepath: str | os.PathLike, encoding: str = 'utf-8') -> None:
        """Writes text in one step; always UTF-8."""
        write_text(filepath, obj)
