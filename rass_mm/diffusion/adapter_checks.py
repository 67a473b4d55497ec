"""Checks of the tensors of an adapter file."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from rass_mm.errors import AdapterError
from rass_mm.files.adapter_header import AGAIN

SIDES = {'.lora_A.weight': 0, '.lora_B.weight': 1}
"""Endings of the names of LoRA tensors, and the dimension whose size is the rank."""
LISTED = 3


def check_tensors(header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | os.PathLike, vae: str) -> None:
    """Checks that the tensors have floating-point values and the rank of the header, and that both sides are present.

    Args:
        header: a valid header.
        tensors: name in the file -> tensor.
        path: the file, for the message.
        vae: prefix of the names of VAE tensors.

    Raises:
        AdapterError: a tensor is wrong or missing. The message names it.
    """
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise AdapterError(
                f'{path}: {key} has the type {tensor.dtype}, but it must be a floating-point type. {AGAIN}'
            )
        side = next((side for side in SIDES if key.endswith(side)), None)
        if side is None:
            continue
        rank = (header.get('vae') or header if key.startswith(vae) else header)['rank']
        if tensor.ndim < 2 or tensor.shape[SIDES[side]] != rank:
            raise AdapterError(
                f'{path}: {key} has the shape {tuple(tensor.shape)}, but the rank in the header is {rank}. {AGAIN}'
            )
    if 'vae' not in header and any(key.startswith(vae) for key in tensors):
        raise AdapterError(
            f"{path} contains tensors of the VAE, but its header has no settings for them (the key 'vae'). {AGAIN}"
        )


def check_complete(needed: Iterable[str], found: Iterable[str], path: str | os.PathLike) -> None:
    """Checks that an adapter file contains all tensors that its header announces.

    Args:
        needed: the names of the tensors of the adapter, as in the file.
        found: the names in the file.
        path: the file, for the message.

    Raises:
        AdapterError: tensors are missing. The message lists the first ones.
    """
    missing = sorted(set(needed) - set(found))
    if missing:
        listed = ', '.join(missing[:LISTED])
        raise AdapterError(
            f'{path} lacks {len(missing)} of the tensors that its header announces (targets), e.g. {listed}. {AGAIN}'
        )
