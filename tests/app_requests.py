"""Requests to the HTTP service of the app, with the standard library only."""

import json
import urllib.request

BOUNDARY = 'boundary-of-the-form'


def upload(address, path):
    """Uploads a file. Returns the value that names it in calls."""
    head = f'Content-Disposition: form-data; name="files"; filename="{path.name}"\r\n'
    head = f'--{BOUNDARY}\r\n{head}Content-Type: application/octet-stream\r\n\r\n'
    body = head.encode() + path.read_bytes() + f'\r\n--{BOUNDARY}--\r\n'.encode()
    kind = {'Content-Type': f'multipart/form-data; boundary={BOUNDARY}'}
    with urllib.request.urlopen(
        urllib.request.Request(address + 'gradio_api/upload', body, kind), timeout=60
    ) as answer:
        (stored,) = json.loads(answer.read())
    return {'path': stored, 'orig_name': path.name, 'meta': {'_type': 'gradio.FileData'}}


def call(address, name, *values, timeout=120):
    """Calls an endpoint. Returns its values, or raises a RuntimeError with its message."""
    place = f'{address}gradio_api/call/{name}'
    body = json.dumps({'data': values}).encode()
    request = urllib.request.Request(place, body, {'Content-Type': 'application/json'})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        event = json.loads(answer.read())['event_id']
    kind = None
    with urllib.request.urlopen(f'{place}/{event}', timeout=timeout) as answer:
        for line in answer:
            field, _, text = line.decode().strip().partition(': ')
            if field == 'event':
                kind = text
            elif field == 'data' and kind == 'complete':
                return json.loads(text)
            elif field == 'data' and kind == 'error':
                raise RuntimeError(text)
    raise RuntimeError('the answer has no end')
