"""Random numbers that depend only on the seed and the position in training, so no generator state has to be stored.

`SeededSampler` numbers its draws, `SeedSample` seeds the augmentations of each draw, and `IterationSeedHook` seeds the
random numbers of the model in each iteration. The draws and their augmentations do not depend on the number of
workers, processes or restarts.
"""

import itertools
import random
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS
from mmengine.runner import EpochBasedTrainLoop
from mmseg.registry import TRANSFORMS
from torch.utils.data import Sampler


class Draw(int):
    """Sample index with the attribute `seed`, the seed of its draw. Data sets pass it on as `sample_idx`."""

    seed: int

    def __new__(cls, index: int, seed: int) -> 'Draw':
        """Returns an int equal to `index` with the attribute `seed`."""
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self) -> tuple:
        """Keeps the seed when the index is pickled for a worker process."""
        return Draw, (int(self), self.seed)


def mixed_seed(*parts: int) -> int:
    """Computes a 32-bit seed from several non-negative integers. Similar inputs result in unrelated seeds."""
    return int(np.random.SeedSequence(list(parts)).generate_state(1)[0])


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Infinite sampler in which the n-th draw depends only on the seed and n.

    With an `EpochBasedTrainLoop`, `EpochSamplerHook` ends the sampler after each epoch. Draws are distributed over the
    ranks in turn, as in mmengine's `InfiniteSampler`.

    Args:
        dataset: any object with a length.
        shuffle: whether to draw a new permutation in each epoch. Otherwise, the samples are in order.
        seed: the seed. None uses a random seed that is the same in all processes.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.first = 0
        self.endless = True

    def skip(self, draws: int) -> None:
        """Makes iteration start after the first `draws` draws of this process, without loading their samples."""
        self.first = draws

    def start_epoch(self, epoch: int) -> None:
        """Makes iteration yield the `len(self)` draws of one epoch and then end, as an `EpochBasedTrainLoop` requires.

        If the number of samples is not divisible by the number of processes, the last draws of an epoch belong to the
        next permutation, so that all processes have the same number of draws.
        """
        self.endless = False
        self.skip(epoch * len(self))

    def __len__(self) -> int:
        """Returns the number of draws of this process in an epoch."""
        return -(-self.size // self.world_size)

    def __iter__(self) -> Iterator[Draw]:
        epoch, order = -1, []
        first = self.first * self.world_size + self.rank
        draws = itertools.count(first, self.world_size)
        for draw in draws if self.endless else itertools.islice(draws, len(self)):
            if draw // self.size != epoch:
                epoch = draw // self.size
                order = self._order(epoch)
            yield Draw(order[draw % self.size], mixed_seed(self.seed, draw, 1))

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.size))
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch, 2))
        return torch.randperm(self.size, generator=generator).tolist()


@TRANSFORMS.register_module()
class SeedSample(BaseTransform):
    """First transform of a training pipeline, which seeds Python, NumPy and torch for each draw.

    It has no effect on samples that do not come from a `SeededSampler`.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Seeds the generators from `sample_idx` and returns `results` unchanged."""
        draw = results.get('sample_idx')
        if isinstance(draw, Draw):
            random.seed(draw.seed)
            np.random.seed(draw.seed)
            torch.manual_seed(draw.seed)
        return results


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Hook that seeds the random generators before each iteration from the run's seed, the iteration and the rank."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds all generators of this process, including those of the accelerator."""
        seed = mixed_seed(runner.seed or 0, runner.iter, get_dist_info()[0], 3)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


@HOOKS.register_module()
class EpochSamplerHook(Hook):
    """Hook that makes a `SeededSampler` yield the draws of the current epoch in an `EpochBasedTrainLoop`."""

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Any) -> None:
        """Makes the sampler yield the draws of this epoch."""
        sampler = getattr(runner.train_dataloader, 'sampler', None)
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and isinstance(sampler, SeededSampler):
            sampler.start_epoch(runner.epoch)
