"""Safe loading of pickled tensors, without running code in the file."""

import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from rass_mm.errors import CheckpointError, RassError
from rass_mm.files.contents import check_archive, check_contents
from rass_mm.files.instructions import check_instructions
from rass_mm.files.regular import check_regular

FORMATS = {'.tar format': 'tar', 'TorchScript': 'TorchScript'}
"""Words of torch's message -> a format that it reads only with code."""
CONVERT = (
    'If you trust its author, convert it to plain tensors where it was created: '
    "torch.save({'state_dict': model.state_dict()}, path)."
)


def read_tensors(filename: str | os.PathLike, map_location: Any = None, mmap: bool = False) -> Any:
    """Loads a file with `torch.load` without running code in it.

    Args:
        filename: the checkpoint.
        map_location: the device to load to, as in `torch.load`.
        mmap: whether tensors stay on the disk until they are used. Ignored for files that are not zip files.

    Raises:
        CheckpointError: the file is damaged, contains Python objects that are not allowed (the message names them), or
            is much larger than it looks, see `check_instructions` and `check_contents`.
    """
    filename = os.fspath(filename)
    check_regular(filename, 'Pass a checkpoint.', CheckpointError)
    with open(filename, 'rb') as file:
        zipped = file.read(2) == b'PK'
    if zipped and not zipfile.is_zipfile(filename):  # torch would read a truncated zip file as a pickle
        raise damaged(filename, 'the end of the file is missing')
    if zipped:
        check_archive(filename)
    try:
        check_instructions(filename, zipped)
        content = torch.load(filename, map_location=map_location, weights_only=True, mmap=mmap and zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(filename, error)) from None
    except (RassError, torch.OutOfMemoryError):  # a full GPU is not a fault of the file
        raise
    except Exception as error:  # on instructions that make no sense, the unpickler raises almost any error
        old = next((name for name in FORMATS if name in str(error)), None)
        if old is not None:
            raise CheckpointError(
                f'{filename} is not a checkpoint that torch.save of today writes, but has the format {FORMATS[old]}. '
                'Only plain checkpoints are read. If you trust its author, load it where it was created and save its '
                "tensors: torch.save({'state_dict': model.state_dict()}, path)."
            ) from None
        raise damaged(filename, first_line(error)) from None
    check_contents(content, filename)
    return content


@contextmanager
def tensors_only() -> Iterator[None]:
    """Context manager. Inside the block, the safe reader accepts tensors, containers, numbers and strings only.

    mmengine's training state is not allowed. After the block exits, it is allowed again.
    """
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        torch.serialization.add_safe_globals(allowed)


def damaged(filename: str, reason: str) -> CheckpointError:
    """Returns the error for a file that is damaged or incomplete."""
    return CheckpointError(
        f'Checkpoint {filename} is damaged or incomplete ({reason}). Copy it again or resume from an older one.'
    )


def _refusal(filename: str, error: Exception) -> str:
    try:
        blocked = torch.serialization.get_unsafe_globals_in_checkpoint(filename)
    except Exception:  # torch cannot list the names of an old or foreign format
        blocked = _named_globals(filename)
    if not blocked and 'Unsupported operand' in str(error) and not _starts_as_pickle(filename):
        return (
            f'{filename} is not a PyTorch checkpoint. It may be a web page or a Git LFS pointer that was saved in its '
            f'place. Download the file itself.'
        )
    unsupported = _unsupported(blocked, str(error))
    if unsupported:
        return (
            f'Checkpoint {filename} was not loaded because it cannot be read safely: it contains {unsupported}, which '
            f'the safe reader of torch does not support. {CONVERT}'
        )
    named = (
        ', '.join(blocked)
        or str(error).partition('WeightsUnpickler error: ')[2].strip().partition('\n')[0]
        or first_line(error)
    )
    return (
        f'Checkpoint {filename} was not loaded because it contains Python objects that could run code: {named}. '
        + CONVERT
    )


def _unsupported(blocked: Sequence[str], message: str) -> str | None:
    """Returns the numpy types or the instruction because of which torch stopped, if they cannot run code."""
    if blocked:
        return ', '.join(blocked) if all(name.startswith('numpy.dtypes.') for name in blocked) else None
    kind = re.search(r"but got <class '(numpy\.dtypes\.\w+)'>", message)
    if kind:
        return kind[1]
    found = re.search(r'Unsupported operand (\d+)', message)
    opcode = pickletools.code2op.get(chr(int(found[1]))) if found else None
    return opcode and f'the pickle instruction {opcode.name}'


def _starts_as_pickle(filename: str) -> bool:
    with open(filename, 'rb') as file:
        start = file.read(2)
    return start == b'PK' or (start[:1] == b'\x80' and start[1:] <= b'\x05')


def _named_globals(filename: str) -> list[str]:
    """Returns the names that a plain pickle would import, read from its instructions without running them."""
    names: list[str] = []
    strings: list[str] = []
    with open(filename, 'rb') as file, suppress(Exception):  # a broken pickle is listed up to the damage
        for instruction, argument, _ in pickletools.genops(file):
            if instruction.name == 'GLOBAL':
                names.append(argument.replace(' ', '.'))
            elif instruction.name == 'STACK_GLOBAL':
                names.append('.'.join(strings[-2:]))
            elif isinstance(argument, str):
                strings.append(argument)
    return [name for name in dict.fromkeys(names) if not name.startswith(('torch.', 'collections.'))]


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its type if the message is empty."""
    return str(error).partition('\n')[0] or type(error).__name__
