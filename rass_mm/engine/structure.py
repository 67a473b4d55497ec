"""Checks of the content of a checkpoint: its entries, the types of their values, and the values of its tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import with_config
from torch import Tensor
from typing_extensions import NotRequired, TypedDict

from rass_mm.engine.trained_state import PROVENANCE, read_provenance
from rass_mm.errors import CheckpointError
from rass_mm.files.schemas import ALLOWED, checked

OTHER = 'Use another checkpoint of the run, or download the file again.'
WEIGHTS = ('state_dict', 'model')
"""Entries with the weights. Without them, the whole file is a dict of tensors."""
STATE = ('message_hub', 'optimizer', 'param_schedulers')
"""Entries with the state of training, which a file may contain without weights."""


@with_config(ALLOWED)
class DatasetMeta(TypedDict):
    """Classes of the training data."""

    classes: NotRequired[tuple[str, ...] | list[str] | None]


@with_config(ALLOWED)
class Meta(TypedDict):
    """Entry `meta` of a checkpoint."""

    epoch: NotRequired[int]
    iter: NotRequired[int]
    cfg: NotRequired[str]
    dataset_meta: NotRequired[DatasetMeta | None]


def check_structure(content: Any, filename: str) -> None:
    """Checks the entries of a checkpoint that all commands read: the weights, the record of the base, and `meta`.

    Raises:
        CheckpointError: the content is not a dict, an entry has another type, there are no tensors, or a tensor
            contains NaN or infinity. The message contains the key and the value.
    """
    if not isinstance(content, dict):
        raise CheckpointError(
            f'{filename} contains a {type(content).__name__}, but a checkpoint must be a dict. {OTHER}'
        )
    if 'meta' in content:
        checked(content['meta'], Meta, f'{filename}, entry meta', OTHER, CheckpointError)
    entry = next((name for name in WEIGHTS if name in content), None)
    state = content if entry is None else content[entry]
    place = filename if entry is None else f'{filename}, entry {entry}'
    if not isinstance(state, Mapping):
        raise CheckpointError(f'{place} is a {type(state).__name__}, but it must be a dict of tensors. {OTHER}')
    if entry is None and any(name in content for name in STATE):
        return
    _check_names(state, place, every=entry == 'state_dict')
    check_finite(state, place)
    for name, value in state.items():
        if name.rpartition('.')[2] == PROVENANCE:
            read_provenance(value, filename)


def _check_names(state: Mapping[Any, Any], place: str, every: bool) -> None:
    wrong = [name for name in state if not isinstance(name, str)]
    if wrong:
        raise CheckpointError(f'{place} has the key {wrong[0]!r}, but the names of tensors are strings. {OTHER}')
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if len(others) == len(state) or (every and others):
        found = f'{others[0]} is a {type(state[others[0]]).__name__}' if others else 'it is empty'
        raise CheckpointError(f'{place} must contain tensors, but {found}. {OTHER}')


def _is_finite(name: str, value: Tensor) -> Tensor:
    masked = name.rpartition('.')[2] in ('mask', 'attn_mask')
    return ~torch.isnan(value).any() if masked else torch.isfinite(value).all()


def check_finite(state: Mapping[str, Any], place: str) -> None:
    """Raises a `CheckpointError` if a weight of a state dict contains NaN or infinity.

    The buffer of an attention mask may contain infinity.
    """
    values = {name: value for name, value in state.items() if isinstance(value, Tensor) and value.is_floating_point()}
    values = {name: value.float() if value.element_size() == 1 else value for name, value in values.items()}
    bad = [name for name, value in values.items() if not bool(_is_finite(name, value))]
    if bad:
        raise CheckpointError(
            f'{place}: {bad[0]} contains NaN or infinity ({len(bad)} such tensors in total). The training has probably '
            'diverged. Use an earlier checkpoint.'
        )
