"""Checks of the content of a checkpoint: its entries, the types of their values, and the values of its tensors."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NotRequired

import numpy as np
import torch
from mmengine.logging import print_log
from pydantic import with_config
from torch import Tensor
from typing_extensions import TypedDict

from rass_mm.engine.trained_state import PROVENANCE
from rass_mm.errors import CheckpointError
from rass_mm.files.schemas import ALLOWED, checked

OTHER = 'Use another checkpoint of the run, or download the file again.'
STATE = ('message_hub', 'optimizer', 'param_schedulers')
"""Entries with the state of training, which a file may contain without weights."""

LIMITS = ('min_val', 'max_val', 'min_vals', 'max_vals')
"""Buffers of an observer of quantization."""


@with_config(ALLOWED)
class DatasetMeta(TypedDict):
    """Classes of the training data."""

    classes: NotRequired[tuple[str, ...] | list[str] | None]


@with_config(ALLOWED)
class Meta(TypedDict):
    """Entry `meta` of a checkpoint."""

    epoch: NotRequired[int | None]
    iter: NotRequired[int | None]
    cfg: NotRequired[str | None]
    dataset_meta: NotRequired[DatasetMeta | None]


def settle(content: Any) -> None:
    """Replaces unusual values in a checkpoint.

    `meta=None` becomes an empty dict, integer tensors and arrays in it become integers, and integers that are counts of
    batches become tensors.
    """
    if not isinstance(content, dict):
        return
    state = content.get('state_dict')
    for name, value in list(state.items()) if isinstance(state, dict) else ():
        if type(value) is int and str(name).rpartition('.')[2] == 'num_batches_tracked' and abs(value) < 2**63:
            state[name] = torch.tensor(value)
    if 'meta' not in content:
        return
    meta = {} if content['meta'] is None else content['meta']
    if isinstance(meta, dict):
        meta |= {key: int(meta[key]) for key in ('epoch', 'iter') if _is_integer(meta.get(key))}
    content['meta'] = meta


def _is_integer(value: Any) -> bool:
    if isinstance(value, Tensor):
        kinds = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
        return value.numel() == 1 and value.dtype in kinds
    return isinstance(value, np.integer) or (
        isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in 'iu'
    )


def check_structure(content: Any, filename: str) -> None:
    """Checks the entries of a checkpoint that all commands read: the weights, and that `meta` is a dict.

    Wrong values in `meta` are named in a warning. Those who need them check them, e.g. a resumed run.
    Further entries are accepted. A file whose weights are in other entries, such as `params_ema` or `teacher`, is
    accepted as well, because the code that reads it may know them; see `weights_of`.

    Raises:
        CheckpointError: the content is not a dict, an entry has another type, there are no tensors, or a tensor
            contains NaN or infinity. The message contains the key and the value.
    """
    if not isinstance(content, dict):
        raise CheckpointError(
            f'{filename} contains a {type(content).__name__}, but a checkpoint must be a dict. {OTHER}'
        )
    if 'meta' in content:
        checked(content['meta'], dict, f'{filename}, entry meta', OTHER, CheckpointError)
        _warn_of_meta(content['meta'], filename)
    entry = 'state_dict' if 'state_dict' in content else 'model' if _holds_tensors(content.get('model')) else None
    state = content if entry is None else content[entry]
    place = filename if entry is None else f'{filename}, entry {entry}'
    if entry != 'state_dict':  # mmengine loads the tensors beside the entries
        check_finite(content, filename)
    if entry is None and (any(name in content for name in STATE) or any(_entries_with_tensors(content))):
        return
    check_weights(state, place, every=entry == 'state_dict')
    if entry is not None:
        check_finite(state, place)


def _warn_of_meta(meta: dict[Any, Any], filename: str) -> None:
    try:
        checked(meta, Meta, f'{filename}, entry meta', 'A run cannot be resumed from it.', CheckpointError)
    except CheckpointError as error:
        print_log(str(error), 'current', logging.WARNING)


def check_classes(content: Mapping[str, Any], filename: str) -> None:
    """Raises a `CheckpointError` if the classes in a checkpoint are neither a list of names nor one name."""
    known = (content.get('meta') or {}).get('dataset_meta')
    if isinstance(known, dict) and isinstance(known.get('classes'), str):
        return
    checked(known, DatasetMeta | None, f'{filename}, entry meta.dataset_meta', OTHER, CheckpointError)


def weights_of(content: Mapping[str, Any], filename: str) -> Mapping[str, Any]:
    """Returns the weights of a checkpoint where mmengine looks for them: the entry `state_dict`, or the whole file.

    Raises:
        CheckpointError: the file has no `state_dict`, and its tensors are in other entries. The message contains them.
    """
    if 'state_dict' in content or any(isinstance(value, Tensor) for value in content.values()):
        return content.get('state_dict', content)
    entries = list(_entries_with_tensors(content))
    if not entries:
        return content
    raise CheckpointError(
        f'{filename} has no state_dict. Its tensors are in {", ".join(map(str, entries[:6]))}. Save those that you '
        f"need: torch.save({{'state_dict': torch.load(FILE)[{entries[0]!r}]}}, NEW_FILE)."
    )


def _entries_with_tensors(content: Mapping[Any, Any]) -> Iterator[Any]:
    yield from (key for key, value in content.items() if key not in STATE and _holds_tensors(value))


def _holds_tensors(value: Any) -> bool:
    parts = value.values() if isinstance(value, Mapping) else ()
    return any(isinstance(part, Tensor) or _holds_tensors(part) for part in parts)


def check_weights(state: Any, place: str, every: bool = True) -> None:
    """Raises a `CheckpointError` if a state dict has other keys than strings or other values than tensors.

    Args:
        state: the state dict.
        place: its file and entry, for the message.
        every: whether all values must be tensors, and not only one. Modules may store any value as `_extra_state`.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(f'{place} is a {type(state).__name__}, but it must be a dict of tensors. {OTHER}')
    wrong = [name for name in state if not isinstance(name, str)]
    if wrong:
        raise CheckpointError(f'{place} has the key {wrong[0]!r}, but the names of tensors are strings. {OTHER}')
    values = {name: value for name, value in state.items() if name.rpartition('.')[2] != PROVENANCE}
    others = [name for name, value in values.items() if not isinstance(value, Tensor)]
    if len(others) == len(values) or (every and others):
        found = f'{others[0]} is a {type(state[others[0]]).__name__}' if others else 'it is empty'
        raise CheckpointError(f'{place} must contain tensors, but {found}. {OTHER}')


def is_finite(name: str, value: Tensor) -> bool:
    """Returns whether a floating-point tensor is finite, or has infinity where its name allows it.

    Buffers of masks may contain -inf beside 0 and 1, and observers of quantization start with infinite limits.

    Args:
        name: full name of the tensor.
        value: the tensor.
    """
    if bool(torch.isfinite(value).all()):
        return True
    last = name.rpartition('.')[2]
    if last in LIMITS:
        return not bool(torch.isnan(value).any())
    return 'mask' in last.split('_') and bool(((value == 0) | (value == 1) | torch.isneginf(value)).all())


def check_finite(state: Mapping[str, Any], place: str) -> None:
    """Raises a `CheckpointError` if a weight of a state dict is not finite, see `is_finite`."""
    values = {name: value for name, value in state.items() if isinstance(value, Tensor) and value.is_floating_point()}
    values = {name: value.float() if value.element_size() == 1 else value for name, value in values.items()}
    bad = [name for name, value in values.items() if not is_finite(str(name), value)]
    if bad:
        raise CheckpointError(
            f'{place}: {bad[0]} contains NaN or infinity ({len(bad)} such tensors in total). The training has probably '
            'diverged. Use an earlier checkpoint.'
        )
