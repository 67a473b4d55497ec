"""Hosts that a download may connect to, and the proxy that it uses."""

import re
from typing import IO
from urllib.error import HTTPError
from urllib.parse import SplitResult, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener, getproxies, proxy_bypass

from rass_mm.errors import DownloadError
from rass_mm_cli.catalog import RemoteFile

LOCAL = ('localhost', '127.0.0.1', '::1')
"""Names of this computer, to which plain HTTP is as safe as HTTPS."""


def folder_address(address: str) -> SplitResult:
    """Returns the parts of an HTTP(S) address of a folder.

    Raises:
        DownloadError: the address is another one, or contains a user name, a query or characters that need quoting.
    """
    try:
        parts = urlsplit(address)
        parts.hostname.encode('idna')  # as the look-up of the host does
        usable = parts.scheme in ('http', 'https') and (parts.port is None or parts.port > 0)
        usable = usable and not (parts.query or parts.fragment or '@' in parts.netloc or re.search(r'\s', address))
    except (ValueError, AttributeError):
        parts, usable = None, False
    if usable:
        return parts
    secret = '@' in address or '?' in address
    shown = f'{parts.scheme}://{parts.hostname}/...' if parts and secret else '...' if secret else address
    raise DownloadError(
        f'{shown!r} is not an address of a folder. Expected https://HOST/FOLDER, without user name and query.'
    )


def check_secure(address: str, file: RemoteFile) -> None:
    """Raises a DownloadError if a file without a known hash would be downloaded over plain HTTP from elsewhere."""
    parts = urlsplit(address)
    if parts.scheme != 'https' and parts.hostname not in LOCAL and not file.known:
        raise DownloadError(
            f'{file.name} has no known hash, so it is not downloaded over plain HTTP, where it could be changed on its '
            'way. Use an https:// address, or copy the file by hand and pass --from.'
        )


def check_host(address: str, hosts: tuple[str, ...], https: bool) -> None:
    """Checks the address of a redirect.

    Args:
        address: the address.
        hosts: accepted hosts. A leading dot also accepts all hosts below, e.g. `.hf.co`.
        https: whether the address must use HTTPS.

    Raises:
        DownloadError: the host is not accepted, or the address uses another protocol.
    """
    parts = urlsplit(address)
    host = parts.hostname or ''
    listed = any(host == name.lstrip('.') or (name.startswith('.') and host.endswith(name)) for name in hosts)
    if not listed:
        raise DownloadError(
            f'The server redirects to the host {host!r}, which is not expected (accepted: {", ".join(hosts)}). Nothing '
            'was downloaded from there. If you trust it, pass its address with --mirror.'
        )
    if parts.scheme != 'https' and (https or parts.scheme != 'http'):
        raise DownloadError(
            f'The server redirects to {parts.scheme}://{host}, but {"https" if https else "http or https"}:// was '
            'expected. Nothing was downloaded. Choose another source with --mirror or --from.'
        )


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to accepted hosts only."""

    def __init__(self, hosts: tuple[str, ...], https: bool) -> None:
        self.hosts, self.https = hosts, https

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: object, newurl: str
    ) -> Request | None:
        check_host(newurl, self.hosts, self.https)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is None:
            raise HTTPError(req.full_url, code, msg, headers, fp)
        return request


def opener_for(host: str, hosts: tuple[str, ...], https: bool) -> OpenerDirector:
    """Returns an opener of addresses that follows redirects to `host` and `hosts` only.

    It uses the proxy of the environment (`https_proxy`, `http_proxy`, `no_proxy`), see `proxy_of`.
    """
    return build_opener(_Redirects((host, *hosts), https))


def proxy_of(address: str) -> str | None:
    """Returns the proxy of the environment for an address, without user name and password, or None."""
    parts = urlsplit(address)
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.hostname or ''):
        return None
    return proxy.rpartition('@')[2]
