"""Sends requests through the guard to an application that records them."""

import asyncio
from pathlib import Path

from rass_mm.app.guard import Guard
from rass_mm.app.limits import Limits
from rass_mm.app.workspace import Workspace

API = '/gradio_api'


def ask(
    path,
    method='GET',
    body=b'',
    host='127.0.0.1:7860',
    inner=None,
    local=True,
    names=(),
    proxied=False,
    folder=None,
    limits=None,
    client=('127.0.0.1', 50_000),
    more=(),
    **headers,
):
    """Sends a request through the guard. Its body never arrives if it is None.

    Returns the status, the headers and the body that the application received.
    """
    sent, received = [], []

    async def app(scope, receive, send):
        received.append(scope)
        if method == 'POST':
            received.append((await receive())['body'])
        if inner:
            raise inner
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        await send({'type': 'http.response.body', 'body': b'page'})

    async def receive():
        if body is None:
            await asyncio.sleep(60)
        return {'type': 'http.request', 'body': body, 'more_body': False}

    async def send(message):
        sent.append(message)

    headers = {'host': host, **{name.replace('_', '-'): value for name, value in headers.items()}}
    given = [(name.encode(), value.encode()) for name, value in [*headers.items(), *more]]
    scope = {'type': 'http', 'method': method, 'path': path, 'headers': given, 'client': client}
    limits = limits or Limits()
    guard = Guard(app, limits, Workspace(folder or Path('/tmp'), limits.max_stored * 10**6), local, names, proxied)
    asyncio.run(guard(scope, receive, send))
    return sent[0]['status'], dict(sent[0]['headers']), received
