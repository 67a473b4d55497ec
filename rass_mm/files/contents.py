"""Limits on the contents of a pickled checkpoint, before and after it is read.

A file of some kilobytes can describe terabytes: compressed entries, a list that contains another list ten times and so
on, a tensor that repeats one value. Such files would exhaust the memory or never end, far from where they are opened.
"""

import os
import zipfile
import zlib
from typing import Any

import torch
from torch import Tensor

from rass_mm.errors import CheckpointError
from rass_mm.files.plain_pickle import other_archive

DEEPEST = 64
"""Levels of containers inside each other. Those of a training run have about ten."""
MOST_ENTRIES = 20_000_000
"""Entries of all containers, counted each time that a shared container is mentioned."""
MOST_INFLATED = 2**28
"""Bytes that a compressed archive may inflate to beyond the size of the file."""
CHUNK = 2**22
MOST_REPEATED = 2**28
"""Bytes of a tensor beyond those that the file stores for it, e.g. of a tensor made by `expand`."""

Container = dict | list | tuple | set | frozenset


def check_archive(filename: str) -> None:
    """Checks the directory, the size and the checksums of a zip file that `torch.save` wrote. torch checks neither.

    All records are read, also those of tensors that are mapped afterwards: which of them will be used is not known
    here, and a flipped bit would become a wrong weight. On one core this takes 0.7 s per GiB, less than the check for
    NaN (2.9 s) and the SHA-256 (1.8 s) that follow in a conversion, and leaves the file in the cache for them.

    Raises:
        CheckpointError: the file is damaged, is not a checkpoint, or inflates to much more than its size.
    """
    try:
        with zipfile.ZipFile(filename) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if sum(name.split('/')[-1].lower() == 'data.pkl' for name in names) != 1 or len(set(names)) != len(names):
                raise CheckpointError(f'{filename} {other_archive(names)}')
            _check_size(filename, sum(entry.file_size for entry in entries))
            wrong = [entry.filename for entry in entries if not _is_whole(archive, entry)]
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, EOFError, zlib.error) as error:
        raise CheckpointError(f'Checkpoint {filename} is damaged ({error}). Copy it again.') from None
    if wrong and len(wrong) < sum(entry.file_size > 0 for entry in entries):  # torch can leave out all checksums
        raise CheckpointError(
            f'Checkpoint {filename} is damaged: {wrong[0]} does not have the checksum in the file '
            f'({len(wrong)} of {len(entries)} records). Copy it again or use another checkpoint.'
        )


def _check_size(filename: str, inflated: int) -> None:
    stored = os.path.getsize(filename)
    if inflated > stored + MOST_INFLATED:
        raise CheckpointError(
            f'Checkpoint {filename} was not loaded: its {stored:,} bytes would inflate to {inflated:,}. torch.save '
            'does not compress. If you trust its author, repack the file without compression.'
        )


def _is_whole(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(entry) as record:
            while record.read(CHUNK):
                pass
    except zipfile.BadZipFile as error:
        if 'CRC' in str(error):
            return False
        raise
    return True


def check_contents(content: Any, filename: str) -> None:
    """Checks that what was read has a finite size, a moderate depth and plain tensors only.

    Raises:
        CheckpointError: a container contains itself, containers are nested too deeply or have too many entries, or a
            tensor is not dense or much larger than its stored values. The message contains the keys.
    """
    try:
        _entries(content, {}, ())
    except _RefusedError as refused:
        place, reason = refused.args
        raise CheckpointError(f'Checkpoint {filename} was not loaded: {_keys(place)} {reason}.') from None


class _RefusedError(Exception):
    """Place and reason of a refusal."""


def _entries(value: Any, known: dict[int, int | None], place: tuple) -> int:
    """Returns the number of entries of a value. `known` holds those of finished containers, and None for open ones."""
    if isinstance(value, Tensor):
        _check_tensor(value, place)
        return 1
    if not isinstance(value, Container):
        return 1
    if id(value) in known:
        if known[id(value)] is None:
            raise _RefusedError(place, 'contains itself')
        return known[id(value)]
    if len(place) > DEEPEST:
        raise _RefusedError(place[:3], f'has containers in more than {DEEPEST} levels')
    known[id(value)] = None
    count = 1
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        count += _entries(part, known, (*place, key))
        if count > MOST_ENTRIES:
            raise _RefusedError(place[:3], f'has more than {MOST_ENTRIES:,} entries')
    known[id(value)] = count
    return count


def _check_tensor(value: Tensor, place: tuple) -> None:
    if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_nested:
        kind = 'quantized' if value.is_quantized else 'meta' if value.is_meta else str(value.layout).split('.')[-1]
        raise _RefusedError(place, f'is a tensor of the kind {kind}, and only dense tensors with values are read')
    stored = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > stored + MOST_REPEATED:
        size = 'x'.join(map(str, value.shape))
        raise _RefusedError(place, f'has {size} values, but the file stores {stored:,} bytes for it')


def _keys(place: tuple) -> str:
    return ''.join(f'[{key!r}]' if isinstance(key, (int, str)) else '[...]' for key in place)[:200] or 'its content'
