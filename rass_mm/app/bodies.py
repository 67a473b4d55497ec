"""Bodies of requests, which are checked while or before Gradio receives them."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from rass_mm.app.forms import FormError, FormWatch
from rass_mm.app.limits import MEGABYTE, Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

LARGEST_BODY, DEEPEST = 10**6, 20
"""Bytes of a request that is not an upload, and nested lists and dicts in it."""
PATIENCE, SLOWEST = 60.0, 10_000
"""Seconds that a body may take, and bytes per second that extend them. Slower senders would block those who wait."""


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of the program
    """Answer to a request that is refused: status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Upload:
    """Upload that is checked while it is received.

    Args:
        headers: the headers of the request.
        receive: receives the next part of the request.
        limits: the limits on uploads.
        release: function that ends the reservation of some bytes, which are stored or no longer expected.

    Attributes:
        expected: number of bytes that have not arrived yet.

    Raises:
        Refusal: the headers are not those of a form of files, or the upload is too large.
    """

    def __init__(
        self, headers: dict[str, str], receive: Receive, limits: Limits, release: Callable[[int], None]
    ) -> None:
        self.given, self.release, self.complete = _Parts(receive), release, False
        length = headers.get('content-length')
        if length is None or 'transfer-encoding' in headers:
            raise Refusal(411, 'The size of the upload is missing. Send it in one piece, with Content-Length.')
        most = limits.max_files * limits.max_megabytes * MEGABYTE
        if not length.isdecimal() or int(length) > most + LARGEST_BODY:
            raise Refusal(413, f'The upload is larger than the maximum allowed size of {most} bytes.')
        self.expected = int(length)
        try:
            self.form = FormWatch(headers.get('content-type', ''), limits.max_files)
        except FormError as error:
            raise Refusal(400, str(error)) from error

    async def receive(self) -> Message:
        """Returns the next part of the request.

        Raises:
            Refusal: it is not part of a form of files, or does not arrive.
        """
        if self.complete:
            return await self.given.receive()
        message = await self.given.next()
        part = message.get('body', b'')
        self.complete = not message.get('more_body', False)
        try:
            self.form.feed(part)
            if self.complete:
                self.form.finish()
        except FormError as error:
            raise Refusal(400, str(error)) from error
        self._arrived(len(part))
        return message

    def end(self) -> None:
        """Ends the reservation of the bytes that have not arrived."""
        self._arrived(self.expected)

    def _arrived(self, size: int) -> None:
        size = min(size, self.expected)
        self.expected -= size
        self.release(size)


class _Parts:
    """The parts of a body, which must not arrive more slowly than `SLOWEST` after the first `PATIENCE` seconds."""

    def __init__(self, receive: Receive) -> None:
        self.receive, self.started, self.size = receive, time.monotonic(), 0

    async def next(self) -> Message:
        """Returns the next part, or raises a Refusal if it does not arrive in time."""
        left = self.started + PATIENCE + self.size / SLOWEST - time.monotonic()
        try:
            message = await asyncio.wait_for(self.receive(), max(left, 0))
        except TimeoutError:
            raise Refusal(408, f'Only {self.size} bytes of the request arrived in time. Send it faster.') from None
        if message['type'] != 'http.request':
            raise Refusal(400, 'The request is incomplete.')
        self.size += len(message.get('body', b''))
        return message


async def checked_body(receive: Receive) -> Receive:
    """Reads and checks a body, and returns a function that returns it again."""
    body = await _body(receive)
    try:
        content = json.loads(body) if body else None
    except (ValueError, RecursionError):
        raise Refusal(400, 'The request is not JSON.') from None
    for value in _values(content):
        if isinstance(value, dict) and isinstance(value.get('path'), str) and '://' in value['path']:
            raise Refusal(400, 'Files at other addresses are not read. Upload the file.')
    return _again(body, receive)


async def _body(receive: Receive) -> bytes:
    parts, size, more, given = [], 0, True, _Parts(receive)
    while more:
        message = await given.next()
        parts.append(message.get('body', b''))
        size += len(parts[-1])
        if size > LARGEST_BODY:
            raise Refusal(413, f'The request has more than {LARGEST_BODY} bytes.')
        more = message.get('more_body', False)
    return b''.join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Returns a function that returns a body that is already read, and then what follows it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {'type': 'http.request', 'body': body, 'more_body': False}

    return again


def _values(content: Any) -> Iterator[Any]:
    """Yields all values in nested lists and dicts.

    Raises:
        Refusal: they are nested too deeply.
    """
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise Refusal(400, f'The request has more than {DEEPEST} nested values.')
        yield value
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(item, depth + 1) for item in inner]
