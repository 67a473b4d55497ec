"""Errors of the connection between the processes of a distributed job."""

import os
import re

import torch.distributed

NUMBERS = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
"""Launcher -> environment variable with the number of a process."""
LOST = re.compile(r'gloo|nccl|connection (closed|reset|refused)|timed out', re.IGNORECASE)
"""Words of PyTorch's plain RuntimeError if another process has ended or does not answer."""
OWN = re.compile(r'DataLoader timed out')
"""Words of an error that has such words, but is of this process: a worker of a data loader did not answer."""


def is_lost(error: BaseException) -> bool:
    """Returns whether an error in a distributed job says that another process has ended or cannot be reached."""
    if not (isinstance(error, RuntimeError) and any(name in os.environ for name in NUMBERS.values())):
        return False
    if isinstance(error, torch.distributed.DistError):
        return True
    return bool(LOST.search(str(error))) and not OWN.search(str(error))
