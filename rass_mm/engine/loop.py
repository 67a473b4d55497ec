"""Training loop that resumes without reading the data of earlier iterations."""

from collections.abc import Iterator
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator

from rass_mm.engine.seeding import SeededSampler


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """`IterBasedTrainLoop` in which a resumed run with a `SeededSampler` does not load the earlier batches."""

    def run(self) -> Any:
        """Trains up to `max_iters` iterations, starting at the iteration of the resumed checkpoint if there is one."""
        sampler = self.dataloader.sampler
        if self._iter > 0 and isinstance(sampler, SeededSampler):
            sampler.skip(self._iter * self.dataloader.batch_size)
            self.dataloader_iterator = _Skipping(_InfiniteDataloaderIterator(self.dataloader), self._iter)
        return super().run()


class _Skipping:
    """Iterator that returns None `count` times, without loading any batch, and then the batches of `iterator`."""

    def __init__(self, iterator: Iterator[Any], count: int) -> None:
        self.iterator = iterator
        self.count = count

    def __next__(self) -> Any:
        if self.count > 0:
            self.count -= 1
            return None
        return next(self.iterator)

    def skip_iter(self, count: int) -> None:
        """Skips batches, as onedl-mmengine's loop does, where mmengine's loop reads them."""
        self.count -= count
