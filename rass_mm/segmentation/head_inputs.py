"""Errors of decode heads whose `in_index` and `in_channels` do not fit the features of the backbone and the neck.

mmseg does not check these settings. The convolutions and lists of a head fail when it first runs.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from rass_mm.config.frames import through_user_code
from rass_mm.errors import ConfigError


@contextmanager
def explained_inputs(head: nn.Module, features: Any) -> Iterator[None]:
    """Context manager for a call of a decode head. Errors of a head that fits its inputs are not changed.

    Args:
        head: a decode head.
        features: its inputs, a sequence of (B, C, H, W).

    Raises:
        ConfigError: the head failed without running code of the user, and its `in_index` or `in_channels` does not fit
            the features.
    """
    try:
        yield
    except (IndexError, RuntimeError) as error:
        unrelated = isinstance(error, torch.OutOfMemoryError) or through_user_code(error)
        fault = None if unrelated else input_fault(head, features)
        if fault is None:
            raise
        raise ConfigError(fault) from error


def input_fault(head: nn.Module, features: Any) -> str | None:
    """Returns a message if the `in_index` or `in_channels` of a decode head does not fit its inputs, else None."""
    if not isinstance(head, BaseDecodeHead) or not _are_maps(features):
        return None
    several = isinstance(head.in_index, list | tuple)
    indices = list(head.in_index) if several else [head.in_index]
    name = f'model.decode_head ({type(head).__name__}, or model.auxiliary_head)'
    if not all(-len(features) <= index < len(features) for index in indices):
        return (
            f'{name}: in_index is {head.in_index}, but the backbone and the neck return {len(features)} features. Set '
            f'indices from 0 to {len(features) - 1}.'
        )
    found = [features[index].shape[1] for index in indices]
    wanted = list(head.in_channels) if isinstance(head.in_channels, list | tuple) else [head.in_channels]
    if head.input_transform == 'resize_concat':
        found = [sum(found)]
    if found == wanted:
        return None
    return (
        f'{name}: in_channels is {head.in_channels}, but the features of the backbone or the neck that in_index='
        f'{head.in_index} selects have {found} channels. Correct in_channels, or model.neck.'
    )


def _are_maps(features: Any) -> bool:
    return isinstance(features, Sequence) and all(isinstance(one, Tensor) and one.ndim == 4 for one in features)


def adapt_heads() -> None:
    """Makes `loss` and `predict` of mmseg's decode heads explain such errors."""
    BaseDecodeHead.loss = _explaining(BaseDecodeHead.loss)
    BaseDecodeHead.predict = _explaining(BaseDecodeHead.predict)


def _explaining(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def explained(self: BaseDecodeHead, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        with explained_inputs(self, inputs):
            return call(self, inputs, *args, **kwargs)

    return explained
