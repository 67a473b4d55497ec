"""End of the fork server of `multiprocessing` together with the command that started it."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

MODULE = 'multiprocessing.forkserver'


@contextmanager
def fork_server_ended() -> Iterator[None]:
    """Context manager. A fork server that is started inside the block has ended when the block exits.

    Otherwise, it would end some time after this process, and run on if this process runs other commands.
    """
    before = _process(_server())
    try:
        yield
    finally:
        server = _server()
        if _process(server) not in (None, before):
            with suppress(OSError):
                # It does not end by itself while another process, e.g. a data worker, has inherited its pipe.
                os.kill(_process(server), signal.SIGKILL)
                server._stop()


def _server() -> Any:
    """Returns the server object, for which multiprocessing has no public name, or None if it is not imported."""
    return getattr(sys.modules.get(MODULE), '_forkserver', None)


def _process(server: Any) -> int | None:
    return getattr(server, '_forkserver_pid', None)
