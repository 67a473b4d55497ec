"""Counts the operations of benchmark jobs and measures the duration of their passes.

The passes of the jobs alternate, so that slow periods of the machine affect all jobs equally.
"""

import gc
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

from rass_mm.analysis.speed.ceiling import TERA
from rass_mm.analysis.speed.job import Job
from rass_mm.analysis.speed.memory import PeakMemory
from rass_mm.analysis.speed.stages import StageMeter
from rass_mm.devices import synchronise
from rass_mm.engine.packing import can_pack

logger = logging.getLogger(__name__)


@dataclass
class Measured:
    """Measurements of one job.

    Args:
        operations: floating-point operations of one pass by stage. The dict is empty if they are not counted.
        parameters: parameter counts, see `Job.parameter_counts`. The dict is empty if they are not counted.
        seconds: duration in seconds of each pass without stage timing.
        stage_seconds: for each pass with stage timing, a dict from the stage to its duration in seconds.
        peaks: peak memory of each pass with stage timing, in bytes above the level before the pass. The list is empty
            if the memory cannot be measured.
    """

    operations: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    stage_seconds: list[dict[str, float]] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)


def passes(jobs: int, iterations: int, warmup: int) -> int:
    """Returns the total number of passes that `measure` runs: to count, to warm up, to time and to time by stage."""
    return jobs * (1 + warmup + 2 * iterations)


def measure(
    jobs: Sequence[Job], iterations: int, warmup: int, advance: Callable[[], Any] = lambda: None
) -> list[Measured]:
    """Counts the operations of each job, warms up all jobs and times them in turns, first as a whole, then by stage.

    Args:
        jobs: the jobs to measure.
        iterations: timed passes of each job, at least 1.
        warmup: warm-up passes of each job, at least 1.
        advance: called after every pass.

    Returns:
        The measurements of each job, in the order of `jobs`.
    """
    found = [Measured() for _ in jobs]
    compiles = any(job.variant.compile for job in jobs)
    with many_compiled_modules() if compiles else nullcontext():
        for job, measured in zip(jobs, found, strict=True):
            if job.counts:
                measured.operations, measured.parameters = counted(job)
                logger.info('%s: %.4g TFLOP per pass', job.variant.name, sum(measured.operations.values()) / TERA)
            else:
                timed(job)
            advance()
        for number in range(warmup + iterations):
            seconds = [_advanced(timed(job), advance) for job in jobs]
            _log_round('warm-up' if number < warmup else 'timed', jobs, seconds)
            for measured, value in zip(found, seconds if number >= warmup else [], strict=False):
                measured.seconds.append(value)
        for _ in range(iterations):
            for job, measured in zip(jobs, found, strict=True):
                seconds, peak = _advanced(timed_by_stage(job), advance)
                measured.stage_seconds.append(seconds)
                measured.peaks += [] if peak is None else [peak]
            _log_round('timed by stages', jobs, [sum(measured.stage_seconds[-1].values()) for measured in found])
    return found


def _advanced(value: Any, advance: Callable[[], Any]) -> Any:
    advance()
    return value


def _log_round(what: str, jobs: Sequence[Job], seconds: Sequence[float]) -> None:
    parts = [f'{job.variant.name} {value:.3g} s' for job, value in zip(jobs, seconds, strict=True)]
    logger.info('%s: %s', what, ', '.join(parts))


@contextmanager
def many_compiled_modules() -> Iterator[None]:
    """Context manager. Inside the block, `torch.compile` may compile the same code 64 times, but not more often."""
    import torch._dynamo

    with torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
        yield


def timed(job: Job) -> float:
    """Runs one pass and returns its duration in seconds."""
    with job.active():
        synchronise(job.device)
        started = time.perf_counter()
        job.run()
        synchronise(job.device)
        return time.perf_counter() - started


def timed_by_stage(job: Job) -> tuple[dict[str, float], int | None]:
    """Runs one pass with a synchronization around every stage.

    Returns:
        The seconds by stage and the peak memory in bytes, which is None if it cannot be measured.
    """

    def read() -> float:
        synchronise(job.device)
        return time.perf_counter()

    gc.collect()
    meter, memory = StageMeter(read), PeakMemory(job.device)
    with job.active(), memory, meter.watching(job.points()):
        job.run()
    return meter.amounts, memory.peak


def counted(job: Job) -> tuple[dict[str, float], dict[str, int]]:
    """Counts the operations of one pass by stage, and the parameters. The pass is not compiled.

    Matrix products, convolutions and attention are counted, with a multiply-add as 2 operations. Elementwise operations
    are not counted.
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={attention: _attention_operations, **packed_operations()})
    reader = ParameterReader()
    meter = StageMeter(counter.get_total_flops)
    with uncompiled(), job.active(), counter, reader, meter.watching(job.points()):
        job.run()
    return meter.amounts, job.parameter_counts(reader.read)


def uncompiled() -> AbstractContextManager:
    """Context manager. Inside the block, compiled modules run without compilation."""
    return torch.compiler.set_stance('force_eager')


def packed_operations() -> dict[Any, Callable[..., int]]:
    """Returns the functions that count the operations of layers with packed weights, which PyTorch does not count."""
    if not can_pack():
        return {}
    return {
        torch.ops.mkldnn._convolution_pointwise: lambda x, weight, *_, out_shape, **__: conv_flop_count(
            x, weight, out_shape
        ),
        torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0],
    }


def _attention_operations(query: Any, key: Any, value: Any, *_args: Any, **_kwargs: Any) -> int:
    """Counts the operations of the CPU attention kernel. PyTorch counts only those of the CUDA kernels."""
    return sdpa_flop_count(query, key, value)


class ParameterReader(TorchDispatchMode):
    """Dispatch mode that records the id of every parameter read by an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.read |= {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, nn.Parameter)}
        return func(*args, **(kwargs or {}))
