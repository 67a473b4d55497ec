"""Reading of published files, without running code in them, and detection of their kind."""

import os
from typing import Any

from torch import Tensor

from rass_mm.errors import CheckpointError
from rass_mm.files.newest import files_in
from rass_mm.files.tensors import read_tensors, tensors_only

OSEDIFF, SCR, RASS = 'osediff', 'scr', 'rass'
KINDS = (OSEDIFF, SCR, RASS)
PLAIN = (Tensor, str, int, float, bool, type(None))


def read_published(path: str | os.PathLike, kind: str | None = None) -> tuple[str, dict[str, Any]]:
    """Reads a published file.

    Args:
        path: path of `osediff.pkl`, `scr.pkl` or `rass.pth`. The file can have any name.
        kind: one of `KINDS`. None detects the kind from the content of the file.

    Returns:
        The kind, and the top-level dict of the file. Tensors are memory-mapped.

    Raises:
        CheckpointError: the file is missing or damaged, contains objects other than tensors, containers, numbers and
            strings (the message names the first one), or is of an unknown kind or of another kind than `kind`.
    """
    if os.path.isdir(path):
        raise CheckpointError(f'{path} is a folder. {files_in(path, (".pkl", ".pth"))}')
    if not os.path.isfile(path):
        raise CheckpointError(f'{path} does not exist. Pass the path of osediff.pkl, scr.pkl or rass.pth.')
    with tensors_only():
        content = read_tensors(path, 'cpu', mmap=True)
    foreign = _foreign(content)
    if foreign:
        raise CheckpointError(
            f'{path} was not loaded because it contains {foreign}. Only tensors, containers, numbers and strings are '
            'allowed. Use the file as published by its authors.'
        )
    found = _kind(content)
    if found is None:
        entries = ', '.join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f'{path} cannot be converted. Supported files are those of OSEDiff and SCR (with the entries '
            'state_dict_unet and unet_lora_encoder_modules) and of RASS (with an entry model that has sem_seg_head.* '
            f'keys). Found: {entries}.'
        )
    if kind not in (None, found) and RASS in (kind, found):
        raise CheckpointError(f'{path} is a file of the kind {found!r}, not {kind!r}. Remove --kind.')
    return kind or found, content


def _kind(content: Any) -> str | None:
    if not isinstance(content, dict):
        return None
    if 'state_dict_unet' in content and 'unet_lora_encoder_modules' in content:
        return OSEDIFF if content.get('state_dict_vae') else SCR
    model = content.get('model')
    known = ('sem_seg_head.', 'backbone.feature_extractor.')
    return RASS if isinstance(model, dict) and any(str(key).startswith(known) for key in model) else None


def _foreign(value: Any, place: str = '') -> str | None:
    """Returns the type and the place of the first object that is not allowed in a published file, if there is one."""
    if isinstance(value, dict):
        items = [(f'{place}.{key}', part) for key, part in value.items()]
    elif type(value) in (list, tuple):
        items = [(f'{place}[{index}]', part) for index, part in enumerate(value)]
    else:
        return None if isinstance(value, PLAIN) else f'a {type(value).__name__} at {place.lstrip(".") or "the top"}'
    return next((found for name, part in items if (found := _foreign(part, name))), None)


def listed_tensors(content: dict[str, Any]) -> list[str]:
    """Returns the names of all tensors in a file as `entry/key`. A tensor in a list has its index as the key."""
    names: list[str] = []

    def walk(value: Any, place: str) -> None:
        if isinstance(value, Tensor):
            names.append(place)
        parts = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
        )
        for key, part in parts:
            walk(part, f'{place}/{key}' if place else str(key))

    walk(content, '')
    return names
