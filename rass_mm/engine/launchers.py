"""Processes of a distributed job: checks of their launcher, the first of them, and their connection."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed
from mmengine.config import Config

from rass_mm.config.arguments import value_fault
from rass_mm.config.key_types import NESTED
from rass_mm.config.processes import NUMBERS, is_lost
from rass_mm.errors import ConfigError, ConnectionLostError, clipped

NEEDED = {
    'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'MASTER_ADDR'),
}
"""Launcher -> environment variables that must be set for each process."""
STARTS = {
    'pytorch': 'torchrun, e.g. tools/dist_train.sh CONFIG PROCESSES',
    'slurm': 'srun',
    'mpi': 'mpirun, with MASTER_ADDR exported',
}
TAKEN = re.compile(r'EADDRINUSE|address already in use', re.IGNORECASE)
"""Words of an error if another program uses the port of the first process."""
LONGEST = 600
"""Characters of PyTorch's message. NCCL gives the reason at the end."""


def check_launcher(launcher: str) -> None:
    """Checks that this process was started by the given launcher.

    Args:
        launcher: 'none', or a key of `NEEDED`.

    Raises:
        ConfigError: an environment variable of the launcher is not set.
    """
    missing = [name for name in NEEDED.get(launcher, ()) if name not in os.environ]
    if missing:
        raise ConfigError(
            f'--launcher {launcher}: the environment variable{"s" * (len(missing) > 1)} {", ".join(missing)} '
            f'{"are" if len(missing) > 1 else "is"} not set, so this process was not started by that launcher. Start '
            f'it with {STARTS[launcher]}, or use --launcher none.'
        )


def is_first_process(launcher: str) -> bool:
    """Returns whether this process is the only one of a job, or the first one that `launcher` started."""
    return int(os.environ.get(NUMBERS.get(launcher, ''), 0)) == 0


def join_cpu_processes(config: Config) -> None:
    """Initializes the gloo backend for processes started by torchrun, because mmengine needs a GPU per process.

    `env_cfg.dist_cfg.timeout` is the time in seconds after which a process that does not answer is an error.

    Raises:
        ConfigError: that time is not a positive number.
        ConnectionLostError: another process did not start in time.
    """
    if config.get('model_wrapper_cfg') is None:
        wrapper = {'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False}
        config.model_wrapper_cfg = {**wrapper, 'find_unused_parameters': config.get('find_unused_parameters', False)}
    if not torch.distributed.is_initialized():
        seconds = ((config.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
        fault = value_fault(seconds, NESTED['dist_cfg.timeout'])
        if fault:
            raise ConfigError(f'env_cfg.dist_cfg.timeout{fault[0]} {fault[1]}')
        with connected():
            torch.distributed.init_process_group('gloo', timeout=seconds and timedelta(seconds=seconds))


@contextmanager
def connected(begun: bool = False) -> Iterator[None]:
    """Context manager. Raises PyTorch's errors of a lost connection between processes as a ConnectionLostError.

    Args:
        begun: whether there can be a checkpoint to resume from.

    Raises:
        ConnectionLostError: another process of the job has ended, has not answered in time or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost(error):
            raise
        reason = f'({clipped(str(error), LONGEST)})'
        if TAKEN.search(str(error)):
            raise ConnectionLostError(
                'The processes of this training cannot connect, because another program uses the port of the first '
                f'one. Set PORT to a free port, the same one on all machines. {reason}'
            ) from error
        raise ConnectionLostError(
            'Another process of this training has ended, has not answered in time, or cannot be reached. The messages '
            'of the other processes and machines contain the reason. Correct it, and give the command on all machines '
            f'again{", with --resume" * begun}. {reason}'
        ) from error
