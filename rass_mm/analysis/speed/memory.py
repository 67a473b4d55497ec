"""The most memory that a pass takes above the level before it."""

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
    """A context; behind it, `peak` is the most that was taken inside above the level at its begin, in bytes.

    On CUDA of the allocator's tensors, else of the process's resident memory; None where the system does not tell.

    Args:
        device: where the tensors are.
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
                RESET.write_text('5')  # the high-water mark falls to what is resident now
                self._level = resident_bytes('VmHWM')
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._level is None:
            return
        cuda = self.device.type == 'cuda'
        most = torch.cuda.max_memory_allocated(self.device) if cuda else resident_bytes('VmHWM')
        self.peak = max(most - self._level, 0)


def resident_bytes(name: str) -> int:
    """`VmHWM` (most so far) or `VmRSS` (now) of this process."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _return_freed_memory() -> None:
    """What an earlier pass has freed would otherwise be reused unseen, and this one would seem to take nothing."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
