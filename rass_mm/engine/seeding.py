"""Randomness as a function of (seed, draw) instead of a stream, so that resuming needs no stored generator state.

`SeededSampler` numbers its draws, `SeedSample` seeds the augmentations of each draw, `IterationSeedHook` seeds the
model's own draws of each iteration. The result does not depend on the number of workers, processes or restarts.
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
from mmseg.registry import TRANSFORMS
from torch.utils.data import Sampler


class Draw(int):
    """A sample index that remembers the seed of this draw; the data set passes it on as `sample_idx`."""

    seed: int

    def __new__(cls, index: int, seed: int) -> 'Draw':
        """An int equal to `index` with attribute `seed`."""
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self) -> tuple:
        """Keeps the seed on the way to a worker process."""
        return Draw, (int(self), self.seed)


def mixed_seed(*parts: int) -> int:
    """A 32-bit seed from several numbers; neighbouring inputs give unrelated seeds."""
    return int(np.random.SeedSequence(list(parts)).generate_state(1)[0])


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Endless sampler whose n-th draw depends on the seed and n only; ranks take turns, as in mmengine's.

    Args:
        dataset: anything with a length.
        shuffle: a fresh permutation each epoch, else in order.
        seed: None takes one seed for all processes.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.first = 0

    def skip(self, draws: int) -> None:
        """Starts at draw number `draws` of this process, without loading what came before."""
        self.first = draws

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Draw]:
        epoch, order = -1, []
        for draw in itertools.count(self.first * self.world_size + self.rank, self.world_size):
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
    """First transform of a training pipeline: seeds Python, numpy and torch for this draw.

    Without a `SeededSampler` before it, it does nothing.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Reads `sample_idx`; changes no key."""
        draw = results.get('sample_idx')
        if isinstance(draw, Draw):
            random.seed(draw.seed)
            np.random.seed(draw.seed)
            torch.manual_seed(draw.seed)
        return results


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seeds the model's own draws (points, dropout, latents) of each training iteration by seed, iteration and rank."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds all generators of this process, the accelerator's included."""
        seed = mixed_seed(runner.seed or 0, runner.iter, get_dist_info()[0], 3)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
