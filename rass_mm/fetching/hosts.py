"""Hosts that a download may connect to, and the proxy that it uses."""

from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener, getproxies, proxy_bypass

from rass_mm.errors import DownloadError
from rass_mm_cli.catalog import RemoteFile

LOCAL = ('localhost', '127.0.0.1', '::1')
"""Names of this computer, to which plain HTTP is as safe as HTTPS."""


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
        raise DownloadError(f'The server redirects from HTTPS to {parts.scheme}://{host}. Nothing was downloaded.')


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
