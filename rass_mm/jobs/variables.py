"""The shard of a process that SLURM, torchrun or Kubernetes started, from their environment variables."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from rass_mm.errors import ConfigError, shown
from rass_mm.jobs.shard import Shard

ARRAY = 'SLURM_ARRAY_TASK_ID'
ARRAY_SIZES = tuple(f'SLURM_ARRAY_TASK_{part}' for part in ('COUNT', 'MIN', 'MAX', 'STEP'))
RANK, WORLD_SIZE, LOCAL_RANK = 'RANK', 'WORLD_SIZE', 'LOCAL_RANK'
INDEX, COMPLETIONS = 'JOB_COMPLETION_INDEX', 'JOB_COMPLETION_COUNT'
"""Kubernetes sets the index of an indexed job. The count is not among its variables, so the job has to set it."""


class Found(NamedTuple):
    """A shard, and the environment variable that it was found by."""

    shard: Shard
    variable: str


def detected_shard(environment: Mapping[str, str] = os.environ) -> Found:
    """Returns the shard of this process.

    Args:
        environment: the environment variables.

    Raises:
        ConfigError: no variables of a known kind are set, some of a kind are missing or wrong, a SLURM array does not
            start at 0 or has holes, or two kinds name different shards.
    """
    kinds = {ARRAY: _array, RANK: _rank, INDEX: _completion}
    found = [Found(read(environment), name) for name, read in kinds.items() if name in environment]
    if not found:
        raise ConfigError(
            f'--shards auto: none of the environment variables {", ".join(kinds)} is set. Start the command in a SLURM '
            'array (sbatch --array=0-7), with torchrun or in an indexed job of Kubernetes, or pass --shards N and '
            '--shard I.'
        )
    if len({shard for shard, _ in found}) > 1:
        listed = ', '.join(f'{variable} means {shard}' for shard, variable in found)
        raise ConfigError(
            f'--shards auto: the environment variables contradict each other: {listed}. Unset those of one kind, e.g. '
            f'with env -u {found[-1].variable} before the command, or pass --shards N --shard I.'
        )
    return found[0]


def _array(environment: Mapping[str, str]) -> Shard:
    number, count, least, most, step = (_number(environment, name, 'SLURM') for name in (ARRAY, *ARRAY_SIZES))
    if (least, most) != (0, count - 1) or (step != 1 and count > 1) or not 0 <= number <= most:
        raise ConfigError(
            f'--shards auto: the SLURM array has {count} tasks with the numbers {least} to {most} in steps of {step}, '
            f'and this is task {number}. Shards are counted from 0 without holes, so that no image is left out: submit '
            f'{count} shards with --array=0-{count - 1}. To repeat single shards, pass --shards N --shard '
            f'"${ARRAY}" instead of auto.'
        )
    return Shard(number, count)


def _rank(environment: Mapping[str, str]) -> Shard:
    return _shard(environment, RANK, WORLD_SIZE, 'torchrun')


def _completion(environment: Mapping[str, str]) -> Shard:
    owner = 'the job (Kubernetes sets only the index; set it in the pod template to the value of .spec.completions)'
    if RANK in environment and WORLD_SIZE in environment and COMPLETIONS not in environment:
        raise ConfigError(
            f'--shards auto: torchrun has set {RANK} and {WORLD_SIZE}, and an indexed job of Kubernetes {INDEX}. If '
            f'each pod runs torchrun for all pods, start it with env -u {INDEX} torchrun ..., so that {RANK} counts.'
        )
    return _shard(environment, INDEX, COMPLETIONS, owner)


def _shard(environment: Mapping[str, str], number: str, count: str, owner: str) -> Shard:
    values = [_number(environment, name, owner) for name in (number, count)]
    try:
        return Shard(*values)
    except ConfigError as error:
        raise ConfigError(f'--shards auto: {number} is {values[0]} and {count} is {values[1]}. {error}') from None


def _number(environment: Mapping[str, str], name: str, owner: str) -> int:
    text = environment.get(name)
    if text is None:
        raise ConfigError(
            f'--shards auto: the environment variable {name} is not set by {owner}. Set it, or pass --shards N '
            '--shard I.'
        )
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigError(f'--shards auto: the environment variable {name} is {shown(text)}, which is not a number.')
    return int(text)
