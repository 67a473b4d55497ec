"""Iteration loop that resumes without reading the data it has already seen."""

from collections.abc import Iterator
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator

from rass_mm.engine.seeding import SeededSampler


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """mmengine's loop; on resume a `SeededSampler` jumps to its draw instead of loading and dropping every batch."""

    def run(self) -> Any:
        """Trains up to `max_iters`, from where a resumed checkpoint left off."""
        sampler = self.dataloader.sampler
        if self._iter > 0 and isinstance(sampler, SeededSampler):
            sampler.skip(self._iter * self.dataloader.batch_size)
            self.dataloader_iterator = _Skipping(_InfiniteDataloaderIterator(self.dataloader), self._iter)
        return super().run()


class _Skipping:
    """Answers the first `count` requests with nothing: those batches were never loaded."""

    def __init__(self, iterator: Iterator[Any], count: int) -> None:
        self.iterator = iterator
        self.count = count

    def __next__(self) -> Any:
        if self.count > 0:
            self.count -= 1
            return None
        return next(self.iterator)
