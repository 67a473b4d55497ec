"""Common end of the processes that one torchrun has started, i.e. of those on this machine.

They record their ends in a temporary folder. torchrun stops only its own processes when one fails, so those on other
machines need not be asked, and no process depends on the network or on a store that ends with another machine.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from rass_mm.files.hashing import json_sha256
from rass_mm.jobs.variables import LOCAL_RANK

logger = logging.getLogger(__name__)

LOCAL_WORLD_SIZE, RUN = 'LOCAL_WORLD_SIZE', 'TORCHELASTIC_RUN_ID'
IDENTITY = (RUN, 'TORCHELASTIC_RESTART_COUNT', 'GROUP_RANK', 'MASTER_ADDR', 'MASTER_PORT')
"""Variables that, with the parent process, tell processes of several runs of torchrun apart."""
INTERVAL = 0.5
"""Seconds between two looks at the processes that have ended."""
ENDED = 'ended'


@contextmanager
def ended_together(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Context manager. A process whose block raises an error waits until those of its siblings have ended in any way.

    torchrun stops all its processes when one fails. Without the wait, a damaged image would stop the shards of the
    others. Processes that torchrun did not start do not wait, and neither does one that is interrupted.
    """
    if any(name not in environment for name in (RUN, LOCAL_RANK, LOCAL_WORLD_SIZE)):
        yield
        return
    siblings, failed = _Siblings(environment), False
    siblings.note(str(os.getpid()))
    try:
        yield
    except Exception:
        failed = True
        raise
    finally:
        siblings.note(ENDED)
        while not siblings.have_ended() and failed:
            time.sleep(INTERVAL)


class _Siblings:
    """Processes of one torchrun. Each has a file with its process id, or `ENDED`, in a folder that the last removes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.own, self.count = environment[LOCAL_RANK], int(environment[LOCAL_WORLD_SIZE])
        key = json_sha256([os.getppid(), _start_of(os.getppid()), *(environment.get(name) for name in IDENTITY)])
        self.folder = Path(tempfile.gettempdir()) / f'rass_mm-torchrun-{key[:16]}'
        self.usable = True

    def note(self, state: str) -> None:
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            (self.folder / self.own).write_text(state, encoding='utf-8')
        except OSError as error:
            logger.warning('%s cannot be written (%s). A failure of this process stops the others.', self.folder, error)
            self.usable = False

    def have_ended(self) -> bool:
        """Returns whether all have ended, and then removes the folder. A missing folder was removed by another one."""
        if not self.usable or not self.folder.is_dir():
            return True
        if not all(self._has_ended(number) for number in range(self.count)):
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def _has_ended(self, number: int) -> bool:
        try:
            state = (self.folder / str(number)).read_text(encoding='utf-8')
        except OSError:
            return False  # it has not begun; if it never does, torchrun ends this process
        return state == ENDED or (state.isdigit() and not _is_running(int(state)))


def _is_running(process: int) -> bool:
    return psutil.pid_exists(process)  # on Windows, os.kill would stop it


def _start_of(process: int) -> str:
    """Returns the time at which a process started, or '' if the system does not tell."""
    try:
        return str(psutil.Process(process).create_time())
    except psutil.Error:
        return ''
