"""Training loop that resumes without reading the data of earlier iterations, and that accumulates gradients."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch import Tensor

from rass_mm.config.arguments import LastStep, Steps
from rass_mm.engine.seeding import SeededSampler
from rass_mm.errors import ConfigError, shown

GLOBAL_BATCH = 'global_batch_size'
"""Entry of the message hub, and so of checkpoints: number of images per update, over all processes."""


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """`IterBasedTrainLoop` in which a resumed run with a `SeededSampler` does not load the earlier batches.

    With `global_batch_size`, each process accumulates the gradients of several batches of its data loader before it
    updates the weights. One iteration is one update: `max_iters`, `val_interval`, schedules, checkpoints, moving
    averages and the log all count updates.

    Args:
        runner: the runner.
        dataloader: the data loader, or its config.
        max_iters: number of updates.
        val_begin, val_interval, dynamic_intervals: see `IterBasedTrainLoop`.
        global_batch_size: number of images per update, over all processes. It must be a multiple of the batch size of
            the data loader times the number of processes. None uses one batch per process.

    Raises:
        ConfigError: `global_batch_size` is not such a multiple, the config also sets `accumulative_counts`, or a
            resumed run has another global batch than its checkpoint.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: Steps,
        val_begin: Steps = 1,
        val_interval: LastStep = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        global_batch_size: Steps | None = None,
    ) -> None:
        super().__init__(runner, dataloader, max_iters, val_begin, val_interval, dynamic_intervals)
        self.accumulated = 1
        self.fixed = global_batch_size is not None
        if global_batch_size is not None:
            self.accumulated = batches_per_update(int(global_batch_size), self.dataloader.batch_size, get_world_size())
        if self.accumulated > 1:
            self.dataloader_iterator = _Groups(self.dataloader_iterator, self.accumulated)

    def run(self) -> Any:
        """Trains up to `max_iters` updates, starting at the update of the resumed checkpoint if there is one.

        Raises:
            ConfigError: the config sets `accumulative_counts` of an optimizer in addition to `global_batch_size`, or
                the checkpoint was trained with another global batch.
        """
        if self.fixed:
            self._refuse_counts()
        self._keep_global_batch()
        if self.accumulated > 1:
            self._accumulate()
        sampler = self.dataloader.sampler
        if self._iter > 0 and isinstance(sampler, SeededSampler):
            sampler.skip(self._iter * self.accumulated * self.dataloader.batch_size)
            batches = _InfiniteDataloaderIterator(self.dataloader)
            groups = _Groups(batches, self.accumulated) if self.accumulated > 1 else batches
            self.dataloader_iterator = _Skipping(groups, self._iter)
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        """Runs one update.

        Args:
            data_batch: a batch of the data loader, or a list of the batches of one update. In the latter case, hooks
                get the first batch before the update, and the last one after it. With `global_batch_size`, a model with
                the method `begin_update` gets all batches first, unless one batch of one process is the whole update.
        """
        whole = not self.fixed or (self.accumulated == 1 and get_world_size() == 1)
        if whole:
            super().run_iter(data_batch)
            return
        batches = data_batch if self.accumulated > 1 else [data_batch]
        self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=batches[0])
        model = self.runner.model.module if is_model_wrapper(self.runner.model) else self.runner.model
        if hasattr(model, 'begin_update'):
            model.begin_update(batches)
        outputs = [self.runner.model.train_step(one, optim_wrapper=self.runner.optim_wrapper) for one in batches]
        self.runner.call_hook(
            'after_train_iter', batch_idx=self._iter, data_batch=batches[-1], outputs=averaged(outputs)
        )
        self._iter += 1

    def _optimizers(self) -> list[Any]:
        wrapper = self.runner.optim_wrapper
        return list(getattr(wrapper, 'optim_wrappers', {'': wrapper}).values())

    def _refuse_counts(self) -> None:
        for part in self._optimizers():
            if part._accumulative_counts != 1:
                raise ConfigError(
                    f'train_cfg.global_batch_size cannot be combined with accumulative_counts='
                    f'{part._accumulative_counts} in optim_wrapper. Remove accumulative_counts.'
                )

    def _keep_global_batch(self) -> None:
        """Records the number of images per update for checkpoints, and compares it with that of a resumed one."""
        if self.dataloader.batch_size is None:  # a batch sampler may make batches of several sizes
            return
        size = self.accumulated * self.dataloader.batch_size * get_world_size()
        before = self.runner.message_hub.get_info(GLOBAL_BATCH, size)
        if self._iter > 0 and before != size:
            raise ConfigError(
                f'The checkpoint was trained with {shown(before)} images per update, but this run has {size}: its '
                'images would be other ones, and its schedule would not fit. Set '
                f'train_cfg.global_batch_size={shown(before)}, or use the same number of processes '
                'and the same train_dataloader.batch_size as before. To start a new run from the weights of the '
                'checkpoint, pass it as load_from, without --resume.'
            )
        self.runner.message_hub.update_info(GLOBAL_BATCH, size)

    def _accumulate(self) -> None:
        """Makes the optimizers update after each group of batches, and divide the losses by their number."""
        for part in self._optimizers():
            # Set here and not in the config, because the runner passes the number of updates as that of batches.
            part._accumulative_counts = self.accumulated
            counts = (self._iter * self.accumulated, self._max_iters * self.accumulated)
            part.initialize_count_status(self.runner.model, *counts)
        size, world = self.dataloader.batch_size, get_world_size()
        print_log(
            f'Global batch size {self.accumulated * size * world}: each update uses {self.accumulated} batches of '
            f'{size} images in each of {world} process{"es" * (world > 1)}.',
            'current',
            logging.INFO,
        )


def batches_per_update(global_batch_size: int, batch_size: int | None, processes: int) -> int:
    """Computes the number of batches that each process accumulates per update.

    Args:
        global_batch_size: number of images per update, over all processes.
        batch_size: number of images per batch of the data loader.
        processes: number of processes.

    Raises:
        ConfigError: the global batch cannot be divided into such batches.
    """
    if batch_size is None:
        raise ConfigError(
            'train_cfg.global_batch_size needs train_dataloader.batch_size, but the data loader has a batch sampler of '
            'its own. Set train_dataloader.batch_size instead of the batch sampler.'
        )
    count, rest = divmod(global_batch_size, batch_size * processes)
    if rest or not count:
        sizes = [size for size in range(1, batch_size + 1) if global_batch_size % (size * processes) == 0]
        fix = f'Set train_dataloader.batch_size to {_choice(sizes)}, or change' if sizes else 'Change'
        raise ConfigError(
            f'train_cfg.global_batch_size is {global_batch_size}, which is not a multiple of {batch_size * processes}: '
            f'{batch_size} images per batch (train_dataloader.batch_size) times {processes} '
            f'process{"es" * (processes > 1)}. {fix} the number of processes.'
        )
    return count


def _choice(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f'{", ".join(map(str, sizes[:-1]))} or {sizes[-1]}'


def averaged(outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the mean of each value of the batches of an update, as tensors or numbers.

    Args:
        outputs: the values to log of each batch. A value that only some batches have is averaged over these.
    """
    found: dict[str, list[Any]] = {}
    for values in outputs:
        for name, value in values.items():
            found.setdefault(name, []).append(value.detach().float() if isinstance(value, Tensor) else value)
    return {
        name: torch.stack(values).mean(0) if isinstance(values[0], Tensor) else sum(values) / len(values)
        for name, values in found.items()
    }


class _Groups:
    """Iterator over lists of `count` consecutive items of `iterator`.

    The batches of an update are loaded before its first step. Otherwise, transforms that run in this process would seed
    the random numbers of the model between two batches.
    """

    def __init__(self, iterator: Iterable[Any], count: int) -> None:
        self.iterator = iter(iterator)
        self.count = count

    def __iter__(self) -> Iterator[list[Any]]:
        return self

    def __next__(self) -> list[Any]:
        return [next(self.iterator) for _ in range(self.count)]

    def skip_iter(self, count: int) -> None:
        """Skips groups, as onedl-mmengine's loop does, where mmengine's loop reads them."""
        self.iterator.skip_iter(count * self.count)


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
