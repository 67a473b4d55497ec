"""Header of a safetensors file, which is read without torch and without the tensors."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rass_mm.errors import CheckpointError

LARGEST = 16 * 2**20
"""Bytes of a header. Those of models with a thousand tensors have a tenth of a MiB."""


@dataclass(frozen=True)
class TensorHeader:
    """Header of a safetensors file.

    Attributes:
        path: the file.
        metadata: texts by key.
        tensors: name -> dict with `dtype`, `shape` and `data_offsets`.
        start: position of the first value in the file.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Any]
    start: int

    def text_of(self, name: str, most: int = 2**22) -> str:
        """Returns the values of a tensor of bytes as text.

        Raises:
            CheckpointError: the tensor has another type, or the file is damaged.
        """
        try:
            first, last = self.tensors[name]['data_offsets']
            if self.tensors[name]['dtype'] != 'U8' or not 0 <= last - first <= most:
                raise ValueError('not a tensor of bytes')
            with self.path.open('rb') as file:
                file.seek(self.start + first)
                return file.read(last - first).decode()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f'{self.path}: the tensor {name} cannot be read ({error}).') from None


def header_length(path: Path) -> int:
    """Returns the length of the header of a safetensors file in bytes, which is at most `LARGEST`.

    Raises:
        CheckpointError: the file is damaged, has a longer header, or another format.
    """
    with path.open('rb') as file:
        start = file.read(8)
    length = struct.unpack('<Q', start)[0] if len(start) == 8 else 0
    if not 0 < length <= min(LARGEST, path.stat().st_size - 8):
        raise CheckpointError(
            f'{path} is not a safetensors file, or is damaged: its header has {length:,} bytes, but from 1 to '
            f'{LARGEST:,}, and no more than the rest of the file, were expected.'
        )
    return length


def read_tensor_header(path: Path) -> TensorHeader:
    """Reads the header of a safetensors file.

    Raises:
        CheckpointError: see `header_length`, or the header is not a JSON object.
    """
    length = header_length(path)
    with path.open('rb') as file:
        file.seek(8)
        data = file.read(length)
    try:
        content = json.loads(data)
        metadata = content.pop('__metadata__', {})
    except (ValueError, RecursionError, AttributeError, TypeError):
        raise CheckpointError(f'{path} is not a safetensors file, or its header is damaged.') from None
    if not isinstance(metadata, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise CheckpointError(f'{path} is not a safetensors file, or its header is damaged.')
    return TensorHeader(path, metadata, content, 8 + length)
