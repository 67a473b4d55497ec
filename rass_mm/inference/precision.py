"""Precision in which a model predicts if the user chooses none."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

import torch

from rass_mm.devices import default_dtype
from rass_mm.diffusion.adapter_files import AdapterSource, as_adapter
from rass_mm.diffusion.base import read_base
from rass_mm.engine.ready import Preparation
from rass_mm.errors import RassError

Bases = str | os.PathLike | Sequence[str | os.PathLike]
"""A base folder, or several in order of preference."""

LARGE = 640
"""Channels of the deepest block of a UNet from which its models are prepared. Stable Diffusion has 1,280."""


def default_preparation(
    device: torch.device, bases: Iterable[Bases], adapters: Iterable[AdapterSource] = ()
) -> Preparation | None:
    """Returns how a model of this package is prepared for prediction by default, or None for not at all.

    Models of a small base run in float32 as they were trained. A preparation would take longer than it saves, and
    without it, the results have the same bits as in training, validation and mmseg's API.

    Restorers of the form `x0` compute in float32. At timestep 999, this form divides the error of the UNet by 0.068
    (`rass_mm.diffusion.one_step.one_step`), so that the rounding of bfloat16 becomes visible in the image. All other
    models have the precision of `rass_mm.devices.default_dtype`.

    Args:
        device: the device.
        bases: the base of each part of the model. One that cannot be read counts as large.
        adapters: the adapter of each restorer in the model: a file or its content.
    """
    if all(_is_small(base) for base in bases):
        return None
    divides = any(_form(adapter) == 'x0' for adapter in adapters)
    return Preparation('float32' if divides else default_dtype(device))


def _is_small(base: Bases) -> bool:
    with suppress(RassError):  # loading reports it
        return read_base(base).configs['unet']['block_out_channels'][-1] < LARGE
    return False


def _form(adapter: AdapterSource) -> str | None:
    with suppress(RassError):
        return (as_adapter(adapter).header.get('recipe') or {}).get('form')
    return None
