"""Common end of the processes that torchrun started."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from torch.distributed import DistError, TCPStore

from rass_mm.errors import RassError
from rass_mm.jobs.variables import WORLD_SIZE

AGENT_STORE = 'TORCHELASTIC_USE_AGENT_STORE'
ATTEMPT = 'TORCHELASTIC_RESTART_COUNT'
INTERVAL = 0.5
"""Seconds between two looks at the number of processes that have ended."""


@contextmanager
def ended_together(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Context manager. A process whose block raises a `RassError` waits until those of the others have ended.

    torchrun stops all processes when one fails. Without the wait, a damaged image would stop the shards of the others.
    Processes that torchrun did not start do not wait.
    """
    if environment.get(AGENT_STORE) != 'True':
        yield
        return
    store = TCPStore(environment['MASTER_ADDR'], int(environment['MASTER_PORT']), is_master=False)
    key = f'rass_mm/ended/{environment.get(ATTEMPT, 0)}'
    try:
        yield
    except RassError:
        with suppress(DistError):
            store.add(key, 1)
            while store.add(key, 0) < int(environment[WORLD_SIZE]):
                time.sleep(INTERVAL)
        raise
    with suppress(DistError):  # torchrun itself has ended
        store.add(key, 1)
