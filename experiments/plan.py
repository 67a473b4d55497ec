"""Order of the runs of the second data sets: the main questions first, so that an interruption leaves whole answers."""

from typing import NamedTuple

from experiments.commands import Run
from experiments.run import plan_runs
from experiments.system import CAMVID_FOLDS, SCENES2


class Stage(NamedTuple):
    """Systems that are run on data sets with all seeds."""

    settings: tuple[str, ...]
    systems: tuple[str, ...]


STAGES = (
    Stage(CAMVID_FOLDS, ('dt', 'ft', 'base', 'scr', 'rass')),
    Stage(SCENES2, ('dt', 'ft', 'base', 'scr', 'rass', 'base_equal', 'ft_equal')),
    Stage(SCENES2, tuple(f'{name}_{count}' for count in (25, 100) for name in ('ft', 'base', 'scr', 'rass'))),
    Stage(SCENES2, ('lite_dt', 'lite_ft', 'lite_r2s', 'r2s')),
    Stage(SCENES2, ('base_b1', 'scr_b1', 'rass_b1')),
    Stage(CAMVID_FOLDS, ('r2s',)),
    Stage(SCENES2, ('ft_twins', 'rass_twins', 'rass_mid')),
    Stage(SCENES2, ('base_t200', 'rass_t200', 'base_t273', 'rass_t273', 'ft_from_dt', 'dt_gn', 'ft_gn')),
)


def staged_runs(seeds: list[int]) -> list[Run]:
    """Returns all runs of the stages without repetition, each after its dependencies."""
    runs = [run for stage in STAGES for run in plan_runs(stage.settings, seeds, list(stage.systems))]
    return list(dict.fromkeys(runs))
