"""Selection and names of devices and precisions."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from rass_mm.errors import ConfigError

LIMITS = (Path('/sys/fs/cgroup/memory.max'), Path('/sys/fs/cgroup/memory.current'))
DTYPES = ('float32', 'bfloat16', 'float16')
PREFERRED = {
    'cuda': lambda: torch.cuda.is_available(),
    'mps': lambda: torch.backends.mps.is_available(),  # GPUs of Apple
    'cpu': lambda: True,
}
"""Name of a device -> function that returns whether it is available."""


def dtype_name(dtype: str | torch.dtype) -> str:
    """Returns the name of a precision that is given by its name or as a torch dtype.

    Raises:
        ConfigError: the precision is not one of `DTYPES`.
    """
    name = str(dtype).removeprefix('torch.') if isinstance(dtype, torch.dtype) else dtype
    if name not in DTYPES:
        raise ConfigError(f'dtype is {dtype!r}, but it must be one of {", ".join(DTYPES)}.')
    return name


def chosen_device(name: str | None) -> torch.device:
    """Returns the device with the given name. Without a name, returns the first one that is available of `PREFERRED`.

    Raises:
        ConfigError: the device cannot be used.
    """
    name = name or next(name for name, is_available in PREFERRED.items() if is_available())
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # fails on 'meta', which has no data
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # the error depends on the kind of device
        reason = str(error).splitlines()[0]
        raise ConfigError(f'Device {name!r} cannot be used ({reason}). Pass --device cpu or another device.') from error
    return device


def default_dtype(device: torch.device) -> str:
    """Returns bfloat16 for a CUDA device or a CPU that computes in it, else float32.

    bfloat16 is as fast as float16 and has a larger range. On a Zen 4 CPU, its matrix products are 2.2 times as fast as
    those in float32. A CPU without such instructions emulates them, which is slower than float32.
    """
    if device.type == 'cuda':
        return 'bfloat16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'float32'
    return 'bfloat16' if device.type == 'cpu' and cpu_has_bfloat16() else 'float32'


def exact_dtype(device: torch.device | None) -> torch.dtype:
    """Returns float64, or float32 for a device of Apple, which has no float64. None is the CPU."""
    return torch.float32 if device is not None and device.type == 'mps' else torch.float64


def cpu_has_bfloat16() -> bool:
    """Returns whether the CPU has instructions for matrix products in bfloat16: AVX-512 BF16 or AMX."""
    found = getattr(torch.cpu, 'get_capabilities', dict)()  # absent before PyTorch 2.11
    return bool(found.get('avx512_bf16') or found.get('amx_bf16'))


class ComputedIn:
    """A method that computes in another dtype.

    Floating-point arguments are cast to the dtype, autocast is disabled, and results are cast to float32.

    Args:
        run: the method.
        dtype: the dtype.
    """

    def __init__(self, run: Callable, dtype: torch.dtype) -> None:
        self.run, self.dtype = run, dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the method."""
        args, kwargs = tree_map(lambda value: _cast(value, self.dtype), (args, kwargs))
        kind = _device_type(args, kwargs)
        # torch.export cannot store a region with another state of autocast
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            return tree_map(lambda value: _cast(value, torch.float32), self.run(*args, **kwargs))


class Autocast(ComputedIn):
    """A method that runs under autocast. Its results are cast to float32."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the method."""
        with torch.autocast(_device_type(args, kwargs), self.dtype):
            return tree_map(lambda value: _cast(value, torch.float32), self.run(*args, **kwargs))


def compute_in(owner: Any, method: str, dtype: torch.dtype, wrapper: type[ComputedIn] = ComputedIn) -> None:
    """Makes a method of an object compute in `dtype`. It has no effect for float32."""
    if dtype is not torch.float32:
        setattr(owner, method, wrapper(getattr(owner, method), dtype))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _device_type(*values: Any) -> str:
    return next((leaf.device.type for leaf in tree_leaves(values) if isinstance(leaf, Tensor)), 'cpu')


def synchronise(device: torch.device) -> None:
    """Waits until a GPU of NVIDIA or Apple has finished all queued work. On other devices, returns at once."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    elif device.type == 'mps':
        torch.mps.synchronize()


def available_memory() -> int:
    """Returns the number of bytes of memory that this process can still use."""
    try:
        lines = Path('/proc/meminfo').read_text(encoding='utf-8').splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable'))
    except (OSError, StopIteration):
        return psutil.virtual_memory().available
    try:
        most, used = (int(file.read_text(encoding='utf-8')) for file in LIMITS)
        used -= _reclaimable()
    except (OSError, ValueError):  # no container, or 'max'
        return free
    return max(min(free, most - used), 0)


def _reclaimable() -> int:
    """Returns the bytes of cached files that count as used in a container, but are given up when memory is needed."""
    try:
        lines = (LIMITS[1].parent / 'memory.stat').read_text(encoding='utf-8').splitlines()
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
