"""How mmengine reads and writes local checkpoint files: safely and in one piece.

Both are registered under mmengine's own extension points, so `Runner`, `init_model` and `load_checkpoint` all use them.
"""

import os
import pickle
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner.checkpoint import CheckpointLoader

from rass_mm.atomic import write_bytes, write_text
from rass_mm.errors import CheckpointError


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_local(filename: str | os.PathLike, map_location: Any = None, *_: Any, **__: Any) -> Any:
    """Reads a local checkpoint without running any code in it.

    Raises:
        CheckpointError: no such file, damaged, or it holds Python objects that are not allowed; the message names them.
    """
    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        raise CheckpointError(
            f'Checkpoint {filename} does not exist. Give the path of a .pth file that training wrote.'
        )
    try:
        return torch.load(filename, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(filename, error)) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f'Checkpoint {filename} is damaged or incomplete ({_first_line(error)}). '
            f'Copy it again, or resume from an older one.'
        ) from None


def _refusal(filename: str, error: Exception) -> str:
    try:
        blocked = torch.serialization.get_unsafe_globals_in_checkpoint(filename)
    except Exception:  # an old or foreign format cannot be listed; torch's own words must do
        blocked = []
    named = (
        ', '.join(blocked)
        or str(error).partition('WeightsUnpickler error: ')[2].strip().partition('\n')[0]
        or _first_line(error)
    )
    return (
        f'Checkpoint {filename} is refused: besides tensors it holds Python objects that could run code when loaded: '
        f'{named}. '
        f'Nothing was loaded. If you trust its author, convert it to plain tensors where it was made: '
        f"torch.save({{'state_dict': model.state_dict()}}, path)."
    )


def _first_line(error: Exception) -> str:
    return str(error).partition('\n')[0] or type(error).__name__


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """Local files written under a temporary name and renamed: a kill while saving leaves the last checkpoint whole."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Writes bytes in one step."""
        write_bytes(filepath, obj)

    def put_text(self, obj: str, filepath: str | os.PathLike, encoding: str = 'utf-8') -> None:
        """Writes text in one step; always UTF-8."""
        write_text(filepath, obj)
