"""Connection to a running Ray cluster, or Ray on this machine for the duration of a job."""

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, chdir, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import RayError

from rass_mm.errors import ConfigError
from rass_mm.files.temporary import temporary_folder
from rass_mm.files.tensors import first_line
from rass_mm.parallel import core_count, environment

LOCAL, CLUSTER = 'local', 'auto'
"""Address that starts Ray on this machine, and the one of a cluster that Ray finds."""
ANSWER = 20.0
"""Seconds in which a cluster must accept a connection. Ray itself tries for more than five minutes."""
HOST, HOST_ONLY = '127.0.0.1', 'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'
"""Address of a local Ray, and the variable that, with the value 0, makes it the only one at which Ray listens.

On Linux, Ray otherwise replaces this address by that of a network interface, and listens at all of them.
"""
STORE = 256 * 2**20
"""Memory for objects of a local Ray in bytes. The objects of a job are names and manifest lines."""
SETTINGS = {
    'RAY_BACKEND_LOG_LEVEL': 'fatal',
    'RAY_USAGE_STATS_ENABLED': '0',
    'RAY_enable_metrics_collection': '0',
    'RAY_memory_monitor_refresh_ms': '0',  # it ends processes when others have filled the memory
}
"""Environment variables of Ray: no messages of its own, and nothing that runs without being used."""
UNKNOWN = (
    'this version of it would listen at addresses that other machines reach. Install the version of Ray in '
    'requirements/lock.txt.'
)
NEUTRAL = '/'
"""Folder in which only the administrator can put modules."""
PREFIX = 'rass_mm-'
LONGEST = 18
"""Length of the longest folder for temporary files whose sockets have valid names."""


@contextmanager
def connected(address: str, actors: int | None) -> Iterator[Mapping[str, float]]:
    """Context manager. Yields the resources of the cluster, e.g. `{'CPU': 2.0}`. A connection of the caller is used.

    Args:
        address: 'local', 'auto' or host:port, see `rass-mm restore --help`.
        actors: number of processes that a local Ray has room for, at least; None for the number of CPU cores.

    Raises:
        ConfigError: no cluster answers, or it has other versions of Ray or Python.
    """
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    with _terminable(), environment(SETTINGS), _private(actors) if address == LOCAL else _member(address):
        try:
            with redirect_stdout(sys.stderr):  # where Ray prints which processes have ended
                yield ray.cluster_resources()
        finally:
            ray.shutdown()  # before the folder of a local Ray is removed


@contextmanager
def _private(actors: int | None) -> Iterator[None]:
    with _temporary() as folder, _host_only():
        _start(
            'Ray cannot be started on this machine ({}).',
            address=LOCAL,
            num_cpus=max(core_count(), actors or 1),
            object_store_memory=STORE,
            include_dashboard=False,
            _node_ip_address=HOST,
            _temp_dir=str(folder),
        )
        if ray.util.get_node_ip_address() != HOST:
            ray.shutdown()
            raise ConfigError(f'Ray is not started, because {UNKNOWN}')
        yield


@contextmanager
def _host_only() -> Iterator[None]:
    before = getattr(ray_constants, 'ENABLE_RAY_CLUSTER', None)  # read from the variable when Ray was imported
    if before is None:
        raise ConfigError(f'Ray is not started, because {UNKNOWN}')
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with environment({HOST_ONLY: '0'}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _member(address: str) -> Iterator[None]:
    message = (
        f'There is no Ray cluster at {address} that this command can join ({{}}). Start it with ray start, give this '
        f'command on one of its machines with the same versions of Ray and Python, or use --ray {LOCAL}.'
    )
    if address != CLUSTER:
        host, _, port = address.rpartition(':')
        try:
            socket.create_connection((host.strip('[]'), int(port)), timeout=ANSWER).close()
        except OSError as error:
            raise ConfigError(message.format(first_line(error))) from error
    _start(message, address=address)
    yield


def _start(message: str, **settings: Any) -> None:
    """Connects from `NEUTRAL`, because Ray lets all its processes import modules of the working directory."""
    try:
        with chdir(NEUTRAL), _without_messages():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (RayError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        ray.shutdown()
        raise ConfigError(message.format(first_line(error))) from error
    except BaseException:
        ray.shutdown()
        raise


@contextmanager
def _without_messages() -> Iterator[None]:
    """Context manager that hides what Ray's compiled parts write to standard error. Failures are exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, 'w') as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _temporary() -> AbstractContextManager[Path]:
    """Returns a context manager that yields a folder for logs and sockets of this process."""
    place = Path(tempfile.gettempdir())
    return temporary_folder(PREFIX, place if len(str(place)) <= LONGEST else Path('/tmp'))


@contextmanager
def _terminable() -> Iterator[None]:
    """Context manager that restores the effect of SIGTERM, which Ray changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
