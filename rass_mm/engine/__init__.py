"""Extensions of mmengine's runner: checkpoints, records, seeding, training loop and parameter groups.

Importing this package registers the extensions with mmengine.
"""

from rass_mm.engine import checkpoints, remote  # noqa: F401  (registers the safe loaders and the atomic backend)
from rass_mm.engine.finite import FiniteTrainingHook
from rass_mm.engine.loop import ResumableIterLoop
from rass_mm.engine.parameter_groups import NormDecayOptimWrapperConstructor
from rass_mm.engine.schedule import ConfigScheduleHook
from rass_mm.engine.seeding import EpochSamplerHook, IterationSeedHook, SeededSampler, SeedSample

__all__ = [
    'ConfigScheduleHook',
    'EpochSamplerHook',
    'FiniteTrainingHook',
    'IterationSeedHook',
    'NormDecayOptimWrapperConstructor',
    'ResumableIterLoop',
    'SeedSample',
    'SeededSampler',
]
