"""Processes of a distributed job: checks of their launcher, the first of them, and their connection on CPUs."""

import os

import torch.distributed
from mmengine.config import Config

from rass_mm.errors import ConfigError

NEEDED = {
    'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'MASTER_ADDR'),
}
"""Launcher -> environment variables that must be set for each process."""
NUMBERS = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
"""Launcher -> environment variable with the number of a process."""
STARTS = {
    'pytorch': 'torchrun, e.g. tools/dist_train.sh CONFIG PROCESSES',
    'slurm': 'srun',
    'mpi': 'mpirun, with MASTER_ADDR exported',
}


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
    """Initializes the gloo backend for processes started by torchrun, because mmengine needs a GPU per process."""
    if config.get('model_wrapper_cfg') is None:
        wrapper = {'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False}
        config.model_wrapper_cfg = {**wrapper, 'find_unused_parameters': config.get('find_unused_parameters', False)}
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
