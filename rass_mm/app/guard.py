"""ASGI middleware in front of Gradio: only the routes that the page needs, no other hosts, no faulty requests."""

import asyncio
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import unquote, urlsplit

from rass_mm.app.bodies import Message, Receive, Refusal, Upload, checked_body
from rass_mm.app.limits import Limits
from rass_mm.app.toolkit import REQUEST_ERRORS
from rass_mm.app.workspace import Workspace
from rass_mm.errors import DataError

logger = logging.getLogger(__name__)

Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

API = '/gradio_api'
PAGES = ('/', '/config', '/favicon.ico', '/manifest.json', '/robots.txt', '/theme.css')
FOLDERS = ('/assets/', '/static/', f'{API}/file=', f'{API}/call/', f'{API}/heartbeat/')
CALLS = ('cancel', 'info', 'openapi.json', 'queue/data', 'queue/join', 'queue/status', 'reset', 'startup-events')
ROUTES = {*PAGES, f'{API}/upload', f'{API}/upload_progress', f'{API}/theme.css', *(f'{API}/{call}' for call in CALLS)}
"""Routes of Gradio that are answered, with those below `FOLDERS`. Others, such as proxies, are not."""
UPLOAD, FILE = f'{API}/upload', f'{API}/file='
HOST = re.compile(r'([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?', re.ASCII)
ONCE = (b'content-type', b'content-length', b'host', b'origin', b'x-forwarded-host', b'transfer-encoding')
"""Headers that a request has once at most. Of two, the guard and Gradio could read different ones."""
DROPPED = (b'range', b'x-gradio-server')
FORWARDED, BELIEVED = b'x-forwarded-', (b'x-forwarded-host', b'x-forwarded-proto')
"""Headers of proxies, from which Gradio makes addresses, and those of them that a proxy of the app sets."""
FAULTY = (LookupError, TypeError, ValueError, AttributeError, AssertionError, *REQUEST_ERRORS)
"""Exceptions that Gradio raises for values of a request that it does not expect."""
LOCAL = ('localhost', '127.0.0.1', '::1')
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    'content-security-policy': POLICY,
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
}


class Guard:
    """Middleware that refuses requests which the page does not need.

    Args:
        app: the application.
        limits: the limits on uploads.
        workspace: the folder with the uploads.
        local: whether the app is reachable from this machine only. Otherwise, it is available under IP addresses too.
        names: names under which the app is available besides `LOCAL`. It is not under others, which a foreign page
            could give to this machine to read it.
        proxied: whether a proxy on this machine makes requests, whose headers `BELIEVED` have the public name. Those
            of other machines are dropped.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        workspace: Workspace,
        local: bool,
        names: Sequence[str] = (),
        proxied: bool = False,
    ) -> None:
        self.app, self.limits, self.workspace, self.local = app, limits, workspace, local
        self.names, self.proxied = {*LOCAL, *(name.lower() for name in names)}, proxied

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it to the application."""
        if scope['type'] != 'http':
            if scope['type'] == 'websocket':
                await send({'type': 'websocket.close'})
            else:
                await self.app(scope, receive, send)
            return
        sending = _Sending(send)
        try:
            self._check(scope)
            await self._passed(scope, receive, sending)
        except Refusal as refusal:
            await _answer(sending, refusal.status, refusal.text)
        except FAULTY as error:
            if sending.started or scope['method'] != 'POST':
                raise
            logger.warning('A request to %s cannot be understood (%s)', scope['path'], type(error).__name__)
            logger.debug('Its error', exc_info=True)
            await _answer(sending, 400, 'The request cannot be understood.')

    async def _passed(self, scope: Message, receive: Receive, send: Send) -> None:
        """Passes a request to the application, after or with a check of its body."""
        passed = _without_headers(scope, BELIEVED if self._behind_proxy(scope) else ())
        if scope['method'] != 'POST':
            await self.app(passed, receive, send)
        elif scope['path'] == UPLOAD:
            upload = Upload(_headers(scope), receive, self.limits, self.workspace.release)
            try:
                await asyncio.to_thread(self.workspace.reserve, upload.expected)
            except DataError as error:
                raise Refusal(413, str(error)) from error
            try:
                await self.app(passed, upload.receive, send)
            finally:
                upload.end()
        else:
            await self.app(passed, await checked_body(receive), send)

    def _check(self, scope: Message) -> None:
        """Raises a Refusal for another route, host or origin."""
        path = scope['path']
        folder = any(path.startswith(prefix) for prefix in FOLDERS)
        if not (path in ROUTES or folder) or not self._plain(unquote(path)):
            raise Refusal(404, 'Not found.')
        names = [name.lower() for name, _ in scope['headers']]
        for name in ONCE:
            if names.count(name) > 1:
                raise Refusal(400, f'The request has more than one header {name.decode()}.')
        self._check_names(scope)

    def _check_names(self, scope: Message) -> None:
        """Raises a Refusal for another host or origin."""
        headers = _headers(scope)
        host = _host_name(headers.get('host', ''))
        forwarded = headers.get('x-forwarded-host') if self._behind_proxy(scope) else None
        if forwarded and not HOST.fullmatch(forwarded):
            raise Refusal(400, 'The host name is not valid.')
        public = _host_name(forwarded) if forwarded else host
        for name in (host, public):
            if not self._available(name):
                raise Refusal(403, f'The app is not available under this host name. Use {LOCAL[0]}, or --host-name.')
        origin = headers.get('origin')
        if origin and scope['method'] == 'POST' and _origin_name(origin) != public:
            raise Refusal(403, 'Requests from pages of other hosts are refused.')

    def _behind_proxy(self, scope: Message) -> bool:
        """Returns whether a proxy on this machine makes a request.

        The server replaces the address of a proxy on this machine by that in its X-Forwarded-For, usually with port 0.
        """
        host, port = scope.get('client') or ('', 1)
        try:
            return self.proxied and (port == 0 or ipaddress.ip_address(host).is_loopback)
        except ValueError:
            return False

    def _available(self, name: str | None) -> bool:
        """Returns whether the app is available under a host name or an IP address."""
        try:
            return name in self.names or (not self.local and bool(ipaddress.ip_address(name or '')))
        except ValueError:
            return False

    def _plain(self, path: str) -> bool:
        """Returns whether a path has no URL and no hidden file, and files are below the workspace."""
        if path.startswith(FILE):
            folder = f'{FILE}{self.workspace.folder}'
            if not path.startswith(f'{folder}/'):
                return False
            path = path.removeprefix(folder)
        return not any(part in path for part in ('\0', ':/', '/.'))


class _Sending:
    """Sends an answer with `HEADERS`, and records whether it has started."""

    def __init__(self, send: Send) -> None:
        self.send, self.started = send, False

    async def __call__(self, message: Message) -> None:
        if message['type'] == 'http.response.start':
            self.started = True
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, 'headers': [*message['headers'], *added]}
        await self.send(message)


def _headers(scope: Message) -> dict[str, str]:
    return {name.decode('latin-1').lower(): value.decode('latin-1') for name, value in scope['headers']}


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f'//{host}').hostname
    except ValueError:
        return None


def _origin_name(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None


def _without_headers(scope: Message, believed: Sequence[bytes]) -> Message:
    """Returns a request without the headers that Gradio must not see, and with the `believed` ones of a proxy."""
    pairs = [(name.lower(), value) for name, value in scope['headers']]
    kept = [
        (name, value)
        for name, value in pairs
        if not name.startswith(DROPPED) and (name in believed or not name.startswith(FORWARDED))
    ]
    return {**scope, 'headers': kept}


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b'content-type', b'text/plain; charset=utf-8'), (b'content-length', str(len(body)).encode())]
    await send({'type': 'http.response.start', 'status': status, 'headers': headers})
    await send({'type': 'http.response.body', 'body': body})
