"""The page and the HTTP service, asked over HTTP like a browser or another program does."""

import json
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from app_requests import call, upload
from PIL import Image

from rass_mm.app.degrading import RANGES
from rass_mm.app.limits import Limits
from rass_mm.app.server import check_address, check_name, is_local, serving
from rass_mm.app.workspace import PREFIX
from rass_mm.errors import ConfigError

JSON = {'Content-Type': 'application/json'}
SCENE = np.full((64, 64, 3), 90, np.uint8)


@pytest.fixture(scope='module')
def address(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp('temporary')
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with serving(models, Limits(250_000, 1, 6), [SCENE], port=0) as address:
            yield address
        assert not list(folder.glob(f'{PREFIX}*'))
    finally:
        tempfile.tempdir = before


def status(address, path, data=None, **headers):
    request = urllib.request.Request(address + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_page_states_its_limits_and_names_no_other_host(address):
    with urllib.request.urlopen(address) as answer:
        page = answer.read().decode()
    assert '250,000 pixels and 1 MB' in page
    assert 'fonts.googleapis' not in page and '<script src="http' not in page


def test_the_service_restores_and_segments(address, photo, service):
    given = upload(address, photo)
    (restored,) = call(address, 'restore', given)
    assert read(restored) == service.restore(photo)[0].read_bytes()
    labels, overlay, shares = call(address, 'segment', given, 'baseline')
    assert read(labels) == service.labels(photo, service.segment(photo, 'baseline')).read_bytes()
    assert Image.open(Path(overlay['path'])).width >= 131 and sum(shares.values()) == pytest.approx(1)
    picture, values = call(address, 'attention', given, 'road')
    assert Image.open(Path(picture['path'])).size == (393, 270) and 0 < values['maximum'] <= 1


def read(file):
    """Downloads a file of the service."""
    with urllib.request.urlopen(file['url']) as answer:
        return answer.read()


def test_the_service_degrades_and_processes_folders(address, photo):
    given = upload(address, photo)
    (degraded,) = call(address, 'degrade', given, 'amounts', 1, 0, 2, 1, 0, 0, 100)
    assert read(degraded) != photo.read_bytes()
    archive, report = call(address, 'folder', [given, given], ['labels'])
    assert report == {'finished': ['street.png', 'street_2.png'], 'failed': {}} and read(archive)[:2] == b'PK'
    (about,) = call(address, 'about')
    assert about['limits'] == {'max_pixels': 250_000, 'max_megabytes': 1, 'max_files': 6, 'keep_minutes': 60}
    assert about['attention'] == ['sky', 'car', 'road'] and set(about['segmentors']) == {'segmentor', 'baseline'}


def test_hostile_files_are_refused_with_a_message(address, hostile):
    for path, message in hostile.items():
        if path.name == 'heavy.bmp':
            with pytest.raises(urllib.error.HTTPError, match='413'):
                upload(address, path)
            continue
        with pytest.raises(RuntimeError, match=message):
            call(address, 'restore', upload(address, path))


def test_other_files_are_not_read_or_served(address, photo):
    secret = photo.parent / 'street.png'
    for path in (secret, Path('/etc/passwd'), Path(__file__)):
        assert status(address, f'gradio_api/file={path}') == 404
        with pytest.raises(RuntimeError):
            call(address, 'restore', {'path': str(path), 'meta': {'_type': 'gradio.FileData'}})
    assert status(address, 'gradio_api/file=../../../../etc/passwd') in (403, 404)
    lock = next(Path(tempfile.tempdir).glob(f'{PREFIX}*')) / '.rass_mm.lock'
    assert status(address, f'gradio_api/file={lock}') in (403, 404)


@pytest.mark.parametrize(
    'path, data',
    [
        ('gradio_api/queue/join', b'{}'),
        ('gradio_api/queue/join', b'[]'),
        ('gradio_api/queue/join', b'{"data": null, "fn_index": 10000, "session_hash": "a"}'),
        ('gradio_api/queue/join', b'{"data": [], "fn_index": -1, "session_hash": "a"}'),
        ('gradio_api/call/none', b'{"data": []}'),
        ('gradio_api/call/v2/none', b'{}'),
        ('gradio_api/call/restore', b'{"data": 5}'),
        ('gradio_api/upload', b'no form'),
        ('gradio_api/cancel', b'{}'),
        ('gradio_api/reset', b'{}'),
    ],
)
def test_faulty_requests_are_answered_without_a_fault_of_the_server(address, path, data):
    assert 400 <= status(address, path, data, **{'Content-Type': 'application/json'}) < 500


def test_a_form_with_text_in_place_of_a_file_is_refused(address):
    form = b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\ntext\r\n--b--\r\n'
    assert status(address, 'gradio_api/upload', form, **{'Content-Type': 'multipart/form-data; boundary=b'}) == 400


def test_events_of_the_page_are_not_part_of_the_service(address):
    with urllib.request.urlopen(address + 'config') as answer:
        dependencies = json.loads(answer.read())['dependencies']
    public = {found['api_name'] for found in dependencies if found['api_visibility'] == 'public'}
    assert public == {'about', 'degrade', 'restore', 'attention', 'segment', 'folder'}


def test_events_of_the_page_refuse_other_files(address, photo):
    """The private event that chooses an image gets the path of a file, once of an upload and once of another file."""
    with urllib.request.urlopen(address + 'config') as answer:
        (choose,) = [one for one in json.loads(answer.read())['dependencies'] if one['api_name'] == 'choose']
    settings = ['none', 1, 0, *(allowed.neutral for allowed in RANGES.values())]
    for number, (path, expected) in enumerate([(upload(address, photo)['path'], True), (str(photo), False)]):
        given = {'path': path, 'meta': {'_type': 'gradio.FileData'}}
        body = {'data': [None, given, *settings], 'fn_index': choose['id'], 'session_hash': f'session-{number}'}
        assert status(address, 'gradio_api/queue/join', json.dumps(body).encode(), **JSON) == 200
        place = f'{address}gradio_api/queue/data?session_hash=session-{number}'
        with urllib.request.urlopen(place, timeout=60) as answer:
            lines = [json.loads(line.decode().partition(': ')[2]) for line in answer if line.strip()]
        (ended,) = [line for line in lines if line['msg'] == 'process_completed']
        assert ended['success'] is expected and ('select Run' in json.dumps(ended)) is expected


def test_the_service_describes_itself(address):
    with urllib.request.urlopen(address + 'gradio_api/openapi.json') as answer:
        text = answer.read().decode()
    assert all(f'/{name}' in text for name in ('about', 'degrade', 'restore', 'attention', 'segment', 'folder'))


def test_a_port_in_use_is_named(models, address):
    port = int(address.rstrip('/').rpartition(':')[2])
    with pytest.raises(ConfigError, match=f'{port}.*--port'), serving(models, Limits(), port=port):
        pass
    assert os.environ['GRADIO_TEMP_DIR'].startswith(tempfile.tempdir)


def test_local_addresses_are_known():
    assert [is_local(host) for host in ('127.0.0.1', '::1', 'localhost', '0.0.0.0', '10.0.0.1', 'host')] == [
        *[True] * 3,
        *[False] * 3,
    ]


@pytest.mark.parametrize('host', ['::1', '127.0.0.2', 'localhost'])
def test_the_page_is_served_at_other_local_addresses(models, host, monkeypatch):
    monkeypatch.setenv('HTTP_PROXY', 'http://127.0.0.1:9')  # of a company, for instance; nothing listens there
    monkeypatch.setenv('http_proxy', 'http://127.0.0.1:9')
    try:
        check_address(host, 0)
    except ConfigError:
        pytest.skip(f'this machine has no {host}')
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with serving(models, Limits(), host=host, port=0) as address, direct.open(address) as answer:
        assert answer.status == 200 and (f'[{host}]' if ':' in host else host) in address
    assert os.environ['HTTP_PROXY'].endswith(':9') and 'NO_PROXY' not in os.environ


@pytest.mark.parametrize('host', ['192.0.2.1', 'no-such-host.invalid', 'a' * 70])
def test_addresses_of_other_machines_are_named(models, host):
    with pytest.raises(ConfigError, match=f'{host}.*--host'), serving(models, Limits(), host=host):
        pass


@pytest.mark.parametrize('name', ['https://photos.org', 'photos.org:8443', 'photos.org/a', '', 'a..b', 'a b'])
def test_addresses_in_place_of_a_public_name_are_named(models, name):
    with pytest.raises(ConfigError, match='--host-name.*is not a host name'), serving(models, Limits(), host_name=name):
        pass
    check_name('photos-2.example.org')


def test_behind_a_proxy_the_page_has_its_public_name(models):
    with serving(models, Limits(), port=0, host_name='photos.example.org') as address:
        for host, expected in (('photos.example.org', 200), ('evil.org', 403)):
            assert status(address, 'config', Host=host) == expected
        given = {'Host': 'photos.example.org', 'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'photos.example.org'}
        with urllib.request.urlopen(urllib.request.Request(f'{address}config', headers=given)) as answer:
            assert json.loads(answer.read())['root'] == 'https://photos.example.org'
        assert status(address, 'gradio_api/reset', b'{}', Origin='https://evil.org', **given) == 403
