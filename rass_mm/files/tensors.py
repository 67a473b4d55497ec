"""Pickled tensors read without running code in them."""

import os
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from rass_mm.errors import CheckpointError


def read_tensors(filename: str | os.PathLike, map_location: Any = None, mmap: bool = False) -> Any:
    """`torch.load` without running code; `mmap` leaves the values of a zip file on the disk until they are used.

    Raises:
        CheckpointError: damaged, or it holds Python objects that are not allowed; the message names them.
    """
    filename = os.fspath(filename)
    zipped = zipfile.is_zipfile(filename)
    with open(filename, 'rb') as file:
        if file.read(2) == b'PK' and not zipped:  # torch would take the rest of a cut zip file for a pickle
            raise damaged(filename, 'the end of the file is missing')
    try:
        return torch.load(filename, map_location=map_location, weights_only=True, mmap=mmap and zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(filename, error)) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise damaged(filename, first_line(error)) from None


@contextmanager
def tensors_only() -> Iterator[None]:
    """Inside, the safe reader knows tensors, containers, numbers and strings alone, not mmengine's training state."""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        torch.serialization.add_safe_globals(allowed)


def damaged(filename: str, reason: str) -> CheckpointError:
    """The error of a file that is damaged or incomplete."""
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
        or first_line(error)
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


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type where it has none."""
    return str(error).partition('\n')[0] or type(error).__name__
