"""Safe loading and atomic writing of local checkpoint files for mmengine.

Both are registered at mmengine's own extension points, so `Runner`, `init_model` and `load_checkpoint` all use them.
"""

import functools
import os
from typing import Any

import mmengine.runner.checkpoint
import numpy as np
from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import load_file
from torch import nn

from rass_mm.engine.packed import packed_checkpoint
from rass_mm.engine.remote import ADDRESS, refuse_remote
from rass_mm.engine.structure import check_structure, settle, weights_of
from rass_mm.engine.trained_state import read_provenance
from rass_mm.errors import CheckpointError
from rass_mm.files.atomic import write_bytes, write_text
from rass_mm.files.newest import files_in
from rass_mm.files.packs.reading import is_pack, open_pack
from rass_mm.files.packs.schema import SEGMENTOR
from rass_mm.files.tensors import damaged, first_line, read_tensors

SUFFIXES = ('.pth', '.safetensors')


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_local(filename: str | os.PathLike, map_location: Any = None, *_: Any, **__: Any) -> Any:
    """Reads a local checkpoint (.pth, .safetensors or the pack of a segmentor) without running any code in it.

    Args:
        filename: path of the checkpoint, or folder of the pack.
        map_location: the device of the tensors of a .pth file, as in `torch.load`.

    Raises:
        CheckpointError: the file is missing, damaged or a folder, is given as a URL, or contains Python objects that
            are not allowed. The message names these objects.
    """
    filename = os.path.expanduser(filename)
    if ADDRESS.match(filename):
        refuse_remote(filename)
    if is_pack(filename):
        return checked_checkpoint(packed_checkpoint(open_pack(filename, SEGMENTOR)), filename)
    if os.path.isdir(filename):
        raise CheckpointError(f'Checkpoint {filename} is a folder. {files_in(filename, SUFFIXES)}')
    if not os.path.isfile(filename):
        raise CheckpointError(
            f'Checkpoint {filename} does not exist. Pass the path of a .pth file that training wrote, or of a '
            f'.safetensors file that rass-mm convert wrote.'
        )
    safe = filename.endswith('.safetensors')
    return checked_checkpoint(_read_safetensors(filename) if safe else read_tensors(filename, map_location), filename)


def checked_checkpoint(content: Any, filename: str) -> Any:
    """Returns the content of a checkpoint after the checks and the replacements of `rass_mm.engine.structure`.

    Raises:
        CheckpointError: a check fails.
    """
    settle(content)
    check_structure(content, filename)
    return content


def _wrap_loading() -> None:
    """Makes mmengine's `load_checkpoint` refuse a file without a `state_dict`, of which it would load nothing."""
    load = mmengine.runner.checkpoint._load_checkpoint_to_model

    @functools.wraps(load)
    def load_weights(model: nn.Module, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        weights_of(checkpoint, 'The checkpoint')
        return load(model, checkpoint, *args, **kwargs)

    mmengine.runner.checkpoint._load_checkpoint_to_model = load_weights


_wrap_loading()


def _read_safetensors(filename: str) -> dict[str, Any]:
    """Reads a converted checkpoint and returns it in mmengine's format, with the metadata that mmseg requires."""
    try:
        state = load_file(filename)
    except Exception as error:  # safetensors has its own error type without a common base class
        raise damaged(filename, first_line(error)) from None
    if '_extra_state' not in state:
        raise CheckpointError(
            f'{filename} is not a checkpoint, because it contains no record of its base and classes. If it is the '
            'adapter of a restorer, set it as model.start (in a restorer config) or model.backbone.scr_adapter (in a '
            'segmentor config), or pass it to rass-mm restore --adapter.'
        )
    classes = read_provenance(state['_extra_state'], filename)['classes']
    # mmseg's visualizer requires a palette; it is drawn as mmseg does for a data set without one.
    palette = np.random.RandomState(42).randint(0, 255, size=(len(classes), 3)).tolist()  # noqa: NPY002
    return {'state_dict': state, 'meta': {'dataset_meta': {'classes': classes, 'palette': palette}}}


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """File backend that writes a file under a temporary name and renames it, so that no partial checkpoint is left."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Writes bytes to a file atomically."""
        write_bytes(filepath, obj)

    def put_text(self, obj: str, filepath: str | os.PathLike, encoding: str = 'utf-8') -> None:
        """Writes text to a file atomically, always as UTF-8. `encoding` is ignored."""
        write_text(filepath, obj)
