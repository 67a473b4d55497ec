"""Selection and names of devices and precisions."""

import os
import platform
from pathlib import Path

import torch
from mmengine.device import get_device, is_cuda_available, is_musa_available, is_npu_available

from rass_mm.errors import ConfigError

LIMITS = (Path('/sys/fs/cgroup/memory.max'), Path('/sys/fs/cgroup/memory.current'))
DTYPES = ('float32', 'bfloat16', 'float16')


def dtype_name(dtype: str | torch.dtype) -> str:
    """Returns the name of a precision that is given by its name or as a torch dtype.

    Raises:
        ConfigError: the precision is not one of `DTYPES`.
    """
    name = str(dtype).removeprefix('torch.') if isinstance(dtype, torch.dtype) else dtype
    if name not in DTYPES:
        raise ConfigError(f'dtype is {dtype!r}, but it must be one of {", ".join(DTYPES)}.')
    return name


def has_accelerator() -> bool:
    """Returns whether this machine has a device on which mmengine supports mixed precision: CUDA, NPU or MUSA."""
    return is_cuda_available() or is_npu_available() or is_musa_available()


def chosen_device(name: str | None) -> torch.device:
    """Returns the device with the given name. Without a name, returns CUDA if it is available, else the CPU.

    Raises:
        ConfigError: the device cannot be used.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # fails on 'meta', which has no data
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # the error depends on the kind of device
        reason = str(error).splitlines()[0]
        raise ConfigError(f'Device {name!r} cannot be used ({reason}). Pass --device cpu or another device.') from error
    return device


def default_dtype(device: torch.device) -> str:
    """Returns bfloat16 for a CUDA device that supports it, else float32.

    bfloat16 is as fast as float16 and has a larger range.
    """
    return 'bfloat16' if device.type == 'cuda' and torch.cuda.is_bf16_supported() else 'float32'


def device_name() -> str:
    """Returns the device on which mmengine places a model, with the name of the GPU or the processor architecture."""
    device = get_device()
    return f'{device} ({torch.cuda.get_device_name() if device == "cuda" else platform.machine()})'


def synchronise(device: torch.device) -> None:
    """Waits until a CUDA device has finished all queued work. On other devices, returns at once."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def available_memory() -> int | None:
    """Returns the number of bytes of memory that this process can still use, or None if it cannot be determined."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable'))
    except (OSError, StopIteration):
        return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') if hasattr(os, 'sysconf') else None
    try:
        most, used = (int(file.read_text()) for file in LIMITS)
        used -= _reclaimable()
    except (OSError, ValueError):  # no container, or 'max'
        return free
    return max(min(free, most - used), 0)


def _reclaimable() -> int:
    """Returns the bytes of cached files that count as used in a container, but are given up when memory is needed."""
    try:
        lines = (LIMITS[1].parent / 'memory.stat').read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith('inactive_file ')), 0)


def check_memory(needed: float, purpose: str, fix: str) -> None:
    """Checks that an amount of main memory is available before it is allocated.

    Args:
        needed: number of bytes.
        purpose: the option and its value, for the message.
        fix: a sentence that states how to use less memory.

    Raises:
        ConfigError: less memory is available.
    """
    free = available_memory()
    if free is not None and needed > free:
        raise ConfigError(
            f'{purpose} needs about {needed / 2**30:,.1f} GiB of memory, but {free / 2**30:.1f} GiB are free. {fix}'
        )
