"""Training that resumes exactly where it was stopped: sampler, seeds, loop; and parameter groups.

Registers with mmengine.
"""

from rass_mm.training.loop import ResumableIterLoop
from rass_mm.training.parameter_groups import NormDecayOptimWrapperConstructor
from rass_mm.training.seeding import IterationSeedHook, SeededSampler, SeedSample

__all__ = [
    'IterationSeedHook',
    'NormDecayOptimWrapperConstructor',
    'ResumableIterLoop',
    'SeedSample',
    'SeededSampler',
]
