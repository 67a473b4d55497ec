"""Devices and precisions: which there are, which is chosen, what they are called."""

import platform

import torch
from mmengine.device import get_device, is_cuda_available, is_musa_available, is_npu_available

from rass_mm.errors import ConfigError

DTYPES = ('float32', 'float16', 'bfloat16')


def has_accelerator() -> bool:
    """Whether mmengine can run mixed precision here."""
    return is_cuda_available() or is_npu_available() or is_musa_available()


def chosen_device(name: str | None) -> torch.device:
    """The device of that name, or the best there is.

    Raises:
        ConfigError: there is no such device.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each kind of device has its own
        reason = str(error).splitlines()[0]
        raise ConfigError(f'Device {name!r} cannot be used ({reason}). Give --device cpu or another one.') from error
    return device


def default_dtype(device: torch.device) -> str:
    """bfloat16 where a cuda device has it: as fast as float16, without its narrow range."""
    return 'bfloat16' if device.type == 'cuda' and torch.cuda.is_bf16_supported() else 'float32'


def device_name() -> str:
    """The device that mmengine puts a model on, with the card's or the processor's kind."""
    device = get_device()
    return f'{device} ({torch.cuda.get_device_name() if device == "cuda" else platform.machine()})'


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all it was given; a CPU always has."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
