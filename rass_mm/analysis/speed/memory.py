"""Measures the peak memory of a pass in excess of the memory in use before it."""

import ctypes
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch

STATUS, RESET = Path('/proc/self/status'), Path('/proc/self/clear_refs')
METHODS = {
    'cuda': 'torch.cuda.max_memory_allocated',
    'cpu': "the process's resident memory, its high-water mark reset before each pass (Linux)",
}


class PeakMemory:
    """Context manager. After it exits, `peak` is the peak memory of the block in bytes above the level on entry.

    On CUDA, this is the memory allocated for tensors. Otherwise, it is the resident memory of the process, or None if
    the system does not report it.

    Args:
        device: device of the tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak: int | None = None
        self._level: int | None = None

    def __enter__(self) -> 'PeakMemory':
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(self.device)
            self._level = torch.cuda.memory_allocated(self.device)
        else:
            _return_freed_memory()
            with suppress(OSError):
                RESET.write_text('5')  # resets the high-water mark to the resident memory
                self._level = resident_bytes('VmHWM')
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._level is None:
            return
        cuda = self.device.type == 'cuda'
        most = torch.cuda.max_memory_allocated(self.device) if cuda else resident_bytes('VmHWM')
        self.peak = max(most - self._level, 0)


def resident_bytes(name: str) -> int:
    """Returns the peak (`VmHWM`) or current (`VmRSS`) resident memory of this process in bytes."""
    line = next(line for line in STATUS.read_text(encoding='utf-8').splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _return_freed_memory() -> None:
    """Returns freed memory to the system. Otherwise, reuse of memory freed by an earlier pass would not be measured."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
