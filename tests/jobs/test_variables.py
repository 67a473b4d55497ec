"""`--shards auto`: variables of SLURM, torchrun and Kubernetes, and every way in which they can be wrong."""

import pytest

from rass_mm.errors import ConfigError
from rass_mm.jobs.shard import Shard
from rass_mm.jobs.variables import detected_shard


def array(number=2, count=4, least=0, most=3, step=1):
    """The variables of a task of a SLURM array."""
    values = {'ID': number, 'COUNT': count, 'MIN': least, 'MAX': most, 'STEP': step}
    return {f'SLURM_ARRAY_TASK_{name}': str(value) for name, value in values.items()}


RANKS = {'RANK': '2', 'WORLD_SIZE': '4'}
PODS = {'JOB_COMPLETION_INDEX': '2', 'JOB_COMPLETION_COUNT': '4'}


@pytest.mark.parametrize(
    ('variables', 'name'), [(array(), 'SLURM_ARRAY_TASK_ID'), (RANKS, 'RANK'), (PODS, 'JOB_COMPLETION_INDEX')]
)
def test_each_kind_names_its_shard(variables, name):
    assert detected_shard({**variables, 'HOME': '/'}) == (Shard(2, 4), name)


def test_an_array_of_one_task_is_one_shard():
    assert detected_shard(array(0, 1, 0, 0)).shard == Shard(0, 1)


def test_kinds_that_agree_are_one():
    assert detected_shard({**array(), **RANKS}).shard == Shard(2, 4)


@pytest.mark.parametrize(
    ('variables', 'said'),
    [
        ({}, 'none of the environment variables SLURM_ARRAY_TASK_ID, RANK, JOB_COMPLETION_INDEX is set'),
        (array(1, 4, 1, 4), r'numbers 1 to 4 .* submit 4 shards with --array=0-3'),
        (array(2, 3, 0, 5), r'3 tasks with the numbers 0 to 5 .* --array=0-2'),
        (array(2, 4, 0, 6, 2), r'steps of 2.* --array=0-3'),
        (array(3, 1, 3, 3), r'numbers 3 to 3 .*--shards N --shard "\$SLURM_ARRAY_TASK_ID"'),
        (array(7, 4, 0, 3), 'this is task 7'),
        ({'SLURM_ARRAY_TASK_ID': '1'}, 'SLURM_ARRAY_TASK_COUNT is not set by SLURM'),
        ({'RANK': '1'}, 'WORLD_SIZE is not set by torchrun'),
        ({'RANK': '4', 'WORLD_SIZE': '4'}, 'RANK is 4 and WORLD_SIZE is 4.*last is 3'),
        ({'RANK': 'one', 'WORLD_SIZE': '4'}, "RANK is 'one', which is not a number"),
        ({'RANK': '-1', 'WORLD_SIZE': '4'}, "RANK is '-1', which is not a number"),
        ({'JOB_COMPLETION_INDEX': '0'}, r'JOB_COMPLETION_COUNT is not set.*\.spec\.completions'),
        ({**array(), 'RANK': '0', 'WORLD_SIZE': '2'}, 'TASK_ID means shard 2 of 4, RANK means shard 0 of 2'),
        ({**RANKS, **PODS, 'JOB_COMPLETION_INDEX': '3'}, 'contradict .* env -u JOB_COMPLETION_INDEX before'),
        ({**RANKS, 'JOB_COMPLETION_INDEX': '1'}, 'env -u JOB_COMPLETION_INDEX torchrun'),
    ],
)
def test_wrong_variables_are_errors_that_name_them(variables, said):
    with pytest.raises(ConfigError, match=said):
        detected_shard(variables)
