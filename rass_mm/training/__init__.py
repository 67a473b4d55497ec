"""Training that can be stopped anywhere and goes on as if it had not: sampler, seeds, loop. Registers with mmengine."""

from rass_mm.training.loop import ResumableIterLoop
from rass_mm.training.seeding import IterationSeedHook, SeededSampler, SeedSample

__all__ = ['IterationSeedHook', 'ResumableIterLoop', 'SeedSample', 'SeededSampler']
