"""Server of the page, on a local address by default."""

import errno
import ipaddress
import logging
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from rass_mm.app import style
from rass_mm.app.cleaning import Cleaner
from rass_mm.app.guard import Guard
from rass_mm.app.limits import MEGABYTE, Limits
from rass_mm.app.models import Models
from rass_mm.app.page import build_page
from rass_mm.app.service import Service
from rass_mm.app.toolkit import Middleware, gradio
from rass_mm.app.workspace import temporary_workspace
from rass_mm.errors import ConfigError
from rass_mm.parallel import environment

logger = logging.getLogger(__name__)

SESSIONS = 1000
"""Number of sessions whose images are remembered. Each takes about 0.2 MB."""
NAME = re.compile(r'[\w-]+(\.[\w-]+)*', re.ASCII)
TEMPORARY = 'GRADIO_TEMP_DIR'
"""Environment variable with the folder in which Gradio stores uploads."""


@contextmanager
def serving(
    models: Models,
    limits: Limits,
    examples: Sequence[np.ndarray] = (),
    host: str = '127.0.0.1',
    port: int = 7860,
    host_name: str | None = None,
) -> Iterator[str]:
    """Context manager. Yields the address of the page, which is served inside the block.

    Uploads and results are in a temporary folder, which is removed when the block exits.

    Args:
        models: the models.
        limits: the limits on uploads.
        examples: images (H, W, 3) uint8 RGB that can be chosen in place of an upload.
        host: address to listen at.
        port: port to listen at; 0 chooses the first free one from 7860.
        host_name: public name of a proxy on this machine, or another name of this machine; None for neither.

    Raises:
        ConfigError: the address cannot be used, or the name has other parts.
    """
    check_name(host_name)
    check_address(host, port)
    most = limits.max_stored * MEGABYTE
    with temporary_workspace(most=most) as workspace, environment({TEMPORARY: str(workspace.folder)}):
        page = build_page(Service(models, limits, workspace), examples)
        workspace.keep()
        hosts = {'local': is_local(host), 'names': _names(host, host_name), 'proxied': bool(host_name)}
        address = _launched(page, host, port, limits, Middleware(Guard, limits=limits, workspace=workspace, **hosts))
        ended = threading.Event()
        cleaner = threading.Thread(target=Cleaner(page, workspace, limits).run, args=(ended,), daemon=True)
        cleaner.start()
        try:
            yield address
        finally:
            ended.set()
            page.close(verbose=False)
            cleaner.join()


def _launched(page: gradio.Blocks, host: str, port: int, limits: Limits, guard: Middleware) -> str:
    """Starts the server of a page and returns its address."""
    direct = {'NO_PROXY': '*', 'no_proxy': '*'}  # Gradio asks its own server whether it has started
    try:
        with environment(direct):
            _, address, _ = page.launch(
                server_name=f'[{host}]' if ':' in host else host,
                server_port=port or None,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                inbrowser=False,
                show_error=False,
                footer_links=[],
                run_history=False,
                allowed_paths=[],
                max_file_size=limits.max_megabytes * MEGABYTE,
                state_session_capacity=SESSIONS,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                theme=style.theme(),
                css=style.CSS,
                app_kwargs={'middleware': [guard]},
            )
    except OSError as error:
        raise ConfigError(f'The address {host}:{port} cannot be used ({error}). Set another --port.') from error
    return address


def check_address(host: str, port: int) -> None:
    """Raises a ConfigError if no server can listen at an address. Port 0 is any port."""
    option = '--host'
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
            option = '--port'
        raise ConfigError(f'The address {host}:{port} cannot be used ({error}). Set another {option}.') from error


def check_name(name: str | None) -> None:
    """Raises a ConfigError if a value is not a host name without other parts of an address."""
    if name is not None and not NAME.fullmatch(name):
        raise ConfigError(
            f'--host-name {name!r} is not a host name. Set the name only, without https:// and port, e.g. '
            'photos.example.org.'
        )


def _names(host: str, host_name: str | None) -> list[str]:
    """Returns the names under which the app is available: its address, its public name and those of this machine."""
    own = [] if is_local(host) else [socket.gethostname(), socket.getfqdn()]
    return [host, *own, *([host_name] if host_name else [])]


def is_local(host: str) -> bool:
    """Returns whether an address to listen at is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'
