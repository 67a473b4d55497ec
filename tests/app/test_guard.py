"""The guard in front of Gradio: routes, hosts, origins, bodies."""

import asyncio
import json
from pathlib import Path

import pytest
from app_guarded import API, ask

from rass_mm.app import bodies
from rass_mm.app.bodies import LARGEST_BODY, Upload
from rass_mm.app.forms import FormError, FormWatch
from rass_mm.app.limits import Limits

BOUNDARY = 'multipart/form-data; boundary=b'


@pytest.mark.parametrize('path', ['/', '/config', '/assets/a.js', f'{API}/file=/tmp/a.png', f'{API}/queue/data'])
def test_the_page_and_its_parts_are_answered(path):
    status, headers, _ = ask(path)
    assert status == 200 and "default-src 'self'" in headers[b'content-security-policy'].decode()


@pytest.mark.parametrize(
    'path',
    ['/monitoring', '/login', f'{API}/run/restore', f'{API}/api/restore', f'{API}/proxy=http://a.org', f'{API}/token']
    + [f'{API}/file=http://a.org/b.png', f'{API}/file=http:/a.org', f'{API}/file=a\0', f'{API}/vibe-code', '/custom']
    + [f'{API}/component_server', f'{API}/process_recording', f'{API}/stream/1/2/3/playlist.m3u8'],
)
def test_other_routes_are_not(path):
    status, _, received = ask(path)
    assert status == 404 and not received


def test_foreign_hosts_and_origins_are_refused():
    assert ask('/', host='evil.org')[0] == 403
    assert ask('/', host='evil.org', local=False)[0] == 403  # it may be a name of this machine for a foreign page
    assert ask('/', host='10.0.0.7:7860')[0] == 403
    for host in ('10.0.0.7:7860', '[fe80::1]:7860', 'localhost', 'Server.org'):
        assert ask('/', host=host, local=False, names=['server.org'])[0] == 200
    for host in ('localhost:7860', '[::1]:7860', '127.0.0.1'):
        assert ask('/', host=host)[0] == 200
    post = {'method': 'POST', 'body': b'{}'}
    assert ask(f'{API}/queue/join', origin='https://evil.org', **post)[0] == 403
    assert ask(f'{API}/queue/join', origin='null', **post)[0] == 403
    assert ask(f'{API}/queue/join', origin='http://127.0.0.1:9', **post)[0] == 200


@pytest.mark.parametrize(
    'body, status',
    [
        (b'{"data": [1]}', 200),
        (b'{"data": [', 400),
        (b'[' * 100_000, 400),
        (json.dumps([[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]).encode(), 400),
        (b'"' + b'a' * LARGEST_BODY + b'"', 413),
        (json.dumps({'data': [{'path': 'http://10.0.0.1/a.png', 'meta': {'_type': 'gradio.FileData'}}]}).encode(), 400),
        (json.dumps({'data': [{'path': '/tmp/a.png', 'url': 'http://127.0.0.1/a.png'}]}).encode(), 200),
    ],
)
def test_bodies_are_checked_and_passed_on(body, status):
    found, _, received = ask(f'{API}/queue/join', 'POST', body)
    assert found == status
    assert received[1:] == ([body] if status == 200 else [])


def test_a_request_that_gradio_cannot_parse_is_not_a_fault_of_the_server():
    assert ask(f'{API}/call/v2/none', 'POST', b'{}', inner=KeyError('/none'))[0] == 400
    with pytest.raises(KeyError):
        ask('/', inner=KeyError('page'))


def test_faults_of_the_server_are_not_answered_as_those_of_the_request():
    with pytest.raises(OSError, match='No space'):
        ask(f'{API}/queue/join', 'POST', b'{}', inner=OSError('No space left on device'))


def test_parts_of_files_are_not_served():
    _, _, (scope,) = ask(f'{API}/file=/tmp/a.png', range='bytes=5-2')
    assert b'range' not in dict(scope['headers'])


def form(*parts, content=b'photo'):
    """A form with parts of these names: a file for a name with a dot, otherwise a text field."""
    lines = []
    for name in parts:
        file = f'; filename="{name}"' if '.' in name else ''
        lines += [b'--b', f'Content-Disposition: form-data; name="files"{file}'.encode(), b'', content]
    return b'\r\n'.join([*lines, b'--b--', b''])


def upload(folder, body=None, **given):
    body = form('a.png') if body is None else body
    given = {'content_length': str(len(body)), 'content_type': BOUNDARY, **given}
    return ask(f'{API}/upload', 'POST', body, folder=folder, **{key: value for key, value in given.items() if value})


def test_the_disk_is_not_filled(tmp_path):
    (tmp_path / 'photo.png').write_bytes(bytes(1_200_000))
    assert upload(tmp_path)[0] == 200
    assert upload(tmp_path, limits=Limits(max_stored=1))[0] == 413
    assert upload(tmp_path, content_length=str(10**12))[0] == 413
    assert upload(tmp_path, content_length='-1')[0] == 413


def test_an_upload_that_would_fill_the_disk_is_refused_before_it_is_stored(tmp_path):
    large = Limits(max_stored=1, max_files=1, max_megabytes=3)
    status, _, received = upload(tmp_path, form('a.png', content=bytes(1_200_000)), limits=large)
    assert status == 413 and not received


def test_uploads_that_do_not_arrive_end(tmp_path, monkeypatch):
    monkeypatch.setattr(bodies, 'PATIENCE', 0.05)
    waiting = {'content_length': '100', 'content_type': BOUNDARY}
    assert ask(f'{API}/upload', 'POST', None, folder=tmp_path, **waiting)[0] == 408
    assert ask(f'{API}/queue/join', 'POST', None, folder=tmp_path)[0] == 408


def test_uploads_that_arrive_byte_by_byte_end(monkeypatch):
    """Each byte arrives in time, but the whole upload would not."""
    monkeypatch.setattr(bodies, 'PATIENCE', 0.3)
    body, sent = form('a.png'), []

    async def receive():
        await asyncio.sleep(0.03)
        sent.append(body[len(sent) : len(sent) + 1])
        return {'type': 'http.request', 'body': sent[-1], 'more_body': True}

    async def all_parts():
        given = Upload({'content-length': str(len(body)), 'content-type': BOUNDARY}, receive, Limits(), lambda _: None)
        for _ in body:
            await given.receive()

    with pytest.raises(bodies.Refusal, match=r'Only \d bytes of the request arrived in time'):
        asyncio.run(all_parts())
    assert 1 <= len(sent) < len(body)
    monkeypatch.setattr(bodies, 'SLOWEST', 1)  # slow enough for this sender
    sent.clear()
    body = form('a.png')[:20]
    asyncio.run(all_parts())
    assert len(sent) == 20


def test_bytes_that_have_arrived_are_not_reserved():
    body = form('a.png')
    parts = [body[:30], body[30:]]
    left = [len(body)]

    async def receive():
        return {'type': 'http.request', 'body': parts.pop(0), 'more_body': bool(parts)}

    headers = {'content-length': str(len(body) + 5), 'content-type': BOUNDARY}
    given = Upload(headers, receive, Limits(), lambda size: left.append(left[-1] - size))
    for rest in (len(body) - 30, 0):
        asyncio.run(given.receive())
        assert left[-1] == rest
    given.end()
    assert left[-1] == -5 and given.expected == 0


def test_uploads_of_unknown_size_are_refused(tmp_path):
    assert upload(tmp_path, content_length=None)[0] == 411
    assert upload(tmp_path, transfer_encoding='chunked')[0] == 411


@pytest.mark.parametrize('parts', [['text'], ['a.png', 'text'], ['a.png'] * 3])
def test_text_fields_and_too_many_files_never_reach_gradio(tmp_path, parts):
    """Gradio would hold a text field of any size in memory."""
    status, _, received = upload(tmp_path, form(*parts), limits=Limits(max_files=2))
    assert status == 400 and len(received) == 1  # the request without its body
    assert upload(tmp_path, form('a.png', 'b.png'), limits=Limits(max_files=2))[0] == 200


@pytest.mark.parametrize(
    'name', ['content-type', 'content-length', 'host', 'origin', 'x-forwarded-host', 'transfer-encoding']
)
def test_requests_with_two_equal_headers_are_refused(name):
    given = {} if name == 'host' else {name: 'localhost'}
    status, _, received = ask('/', more=[(name.title(), 'localhost')], **given)
    assert status == 400 and not received


def test_a_second_boundary_does_not_hide_a_text_field(tmp_path):
    """For the boundary `b`, the body ends with its first line; for `b--X`, it has a text field."""
    body = form('text').replace(b'--b', b'--b--X')
    first = 'multipart/form-data; boundary=b--X'
    status, _, received = upload(tmp_path, body, content_type=first, more=[('Content-Type', BOUNDARY)])
    assert status == 400 and not received
    status, _, received = upload(tmp_path, body)  # also if there is no second header
    assert status == 400 and len(received) == 1


@pytest.mark.parametrize('rest', [b'text', b'\r\n--b--\r\n', b'--b\r\n'])
def test_forms_that_continue_after_their_end_are_refused(rest):
    body = form('a.png')
    for size in (1, 7, len(body), 10**6):
        with pytest.raises(FormError, match='after its end'):
            watched(body + rest, size)
        watched(body + b'\r\n', size)
        watched(form('a.png', content=b'a--b--text\n--b--'), size)


def watched(body, size):
    """Checks a form that arrives in parts of some bytes."""
    watch = FormWatch(BOUNDARY, 2)
    for start in range(0, len(body), size):
        watch.feed(body[start : start + size])
    watch.finish()


def test_forms_without_an_end_or_a_file_are_refused(tmp_path):
    for body in (form('a.png')[:-5], b'--b--\r\n'):
        assert upload(tmp_path, body)[0] == 400
    with pytest.raises(FormError, match='incomplete'):
        watched(form('a.png')[:-5], 100)
    with pytest.raises(FormError, match='no file'):
        watched(b'--b--\r\n', 100)


def test_damaged_forms_are_refused(tmp_path):
    assert upload(tmp_path, b'no form')[0] == 400
    lines = [f'X-{number}: {"a" * 3000}\r\n' for number in range(3)]  # the parser itself refuses a longer one
    for count, status in ((2, 200), (3, 400)):
        assert (
            upload(tmp_path, form('a.png').replace(b'\r\n', f'\r\n{"".join(lines[:count])}'.encode(), 1))[0] == status
        )
    assert upload(tmp_path, content_type='application/json')[0] == 400


def test_only_files_of_the_workspace_are_served():
    folder = Path('/scratch/.user/rass-mm-app-a')
    assert ask(f'{API}/file={folder}/b/c.png', folder=folder)[0] == 200
    for path in (
        '.gradio/cached_examples/s.txt',
        '/etc/passwd',
        f'{folder}/.lock',
        f'{folder}/../a',
        f'{folder}b/c.png',
    ):
        assert ask(f'{API}/file={path}', folder=folder)[0] == 404
