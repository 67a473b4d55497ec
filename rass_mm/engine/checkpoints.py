"""How mmengine reads and writes local checkpoint files: safely and in one piece.

Both are registered under mmengine's own extension points, so `Runner`, `init_model` and `load_checkpoint` all use them.
"""

import json
import os
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import load_file

from rass_mm.engine.remote import refuse_remote
from rass_mm.errors import CheckpointError
from rass_mm.files.atomic import write_bytes, write_text


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


def read_tensors(filename: str | os.PathLike, map_location: Any = None, mmap: bool = False) -> Any:
    """`torch.load` without running code; `mmap` leaves the values of a zip file on the disk until they are used.

    Raises:
        CheckpointError: damaged, or it holds Python objects that are not allowed; the message names them.
    """
    filename = os.fspath(filename)
    zipped = zipfile.is_zipfile(filename)
    with open(filename, 'rb') as file:
        if file.read(2) == b'PK' and not zipped:  # torch would take the rest of a cut zip file for a pickle
            raise _damaged(filename, 'the end of the file is missing')
    try:
        return torch.load(filename, map_location=map_location, weights_only=True, mmap=mmap and zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(filename, error)) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(filename, _first_line(error)) from None


@contextmanager
def tensors_only() -> Iterator[None]:
    """Inside, the safe reader knows tensors, containers, numbers and strings alone, not mmengine's training state."""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        torch.serialization.add_safe_globals(allowed)


def _read_safetensors(filename: str) -> dict[str, Any]:
    """A converted checkpoint in mmengine's form; `meta` has the class names, which mmseg's `init_model` asks for."""
    try:
        state = load_file(filename)
    except Exception as error:  # safetensors has one error type of its own, outside any common base class
        raise _damaged(filename, _first_line(error)) from None
    if '_extra_state' not in state:
        raise CheckpointError(
            f"{filename} is no checkpoint: it does not say what it was trained on. A restorer's adapter is given as "
            'model.start (a restorer) or model.backbone.scr_adapter (a segmentor), or to rass-mm restore --adapter.'
        )
    classes = json.loads(bytes(state['_extra_state'].tolist()))['classes']
    return {'state_dict': state, 'meta': {'dataset_meta': {'classes': classes}}}


def _damaged(filename: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f'Checkpoint {filename} is damaged or incomplete ({reason}). Copy it again, or resume from an older one.'
    )


def _refusal(filename: str, error: Exception) -> str:
    try:
        blocked = torch.serialization.get_unsafe_globals_in_checkpoint(filename)
    except Exception:  # an old or foreign format cannot be listed; torch's own words must do
        blocked = _named_globals(filename)
    if not blocked and 'Unsupported operand' in str(error):
        return (
            f'{filename} is no PyTorch checkpoint: its bytes are not those of one. Was a web page or a Git LFS pointer '
            f'saved in its place? Fetch the file itself.'
        )
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


def _named_globals(filename: str) -> list[str]:
    """What a plain pickle would import; found by reading its instructions, of which none is run."""
    names: list[str] = []
    strings: list[str] = []
    with open(filename, 'rb') as file, suppress(Exception):  # of a broken pickle, what was found so far must do
        for instruction, argument, _ in pickletools.genops(file):
            if instruction.name == 'GLOBAL':
                names.append(argument.replace(' ', '.'))
            elif instruction.name == 'STACK_GLOBAL':
                names.append('.'.join(strings[-2:]))
            elif isinstance(argument, str):
                strings.append(argument)
    return [name for name in dict.fromkeys(names) if not name.startswith(('torch.', 'collections.'))]


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
