"""`rass-mm fetch` from an HTTP server, which may have faults."""

import json
import resource
import time

import pytest
from fetch_server import BIG, CONTENTS, SMALL, names, partial, redirected, serving, sha

from rass_mm.fetching import web

WEIGHTS, CONFIG = CONTENTS
STORED = ['fetched.json', CONFIG, WEIGHTS]


def test_the_files_are_stored_checked_and_recorded(server, catalog, run, tmp_path):
    catalog()
    folder = tmp_path / 'to'
    status, out, err = run('tiny', '--mirror', server.address, '--to', folder)
    assert status == 0, err
    assert (folder / WEIGHTS).read_bytes() == BIG and (folder / CONFIG).read_bytes() == SMALL
    assert names(folder) == STORED
    record = json.loads((folder / 'fetched.json').read_text())
    assert record['files'][WEIGHTS] == {'size': len(BIG), 'sha256': sha(BIG), 'checked': 'catalog'}
    assert record['source'] == server.address and record['licence'] == 'MIT'
    assert err.index('licence: MIT') < err.index(server.address) and f'--base {folder}' in out

    asked = len(server.asked)
    assert run('tiny', '--mirror', server.address, '--to', folder)[0] == 0
    assert len(server.asked) == asked == 2  # complete files are checked, not downloaded


def test_without_a_folder_they_are_stored_where_their_name_is_looked_up(server, catalog, run, tmp_path, monkeypatch):
    catalog(place='bases/tiny-base')
    assert run('tiny', '--mirror', server.address)[0] == 0
    assert names(tmp_path / 'cache' / 'bases' / 'tiny-base') == STORED
    monkeypatch.setenv('RASS_MM_BASES', str(tmp_path / 'shelf'))
    assert run('tiny', '--mirror', server.address)[0] == 0
    assert names(tmp_path / 'shelf' / 'tiny-base') == STORED


def test_another_content_is_refused_and_removed(server, catalog, run, tmp_path):
    catalog()
    other = bytes(len(BIG))
    server.contents[WEIGHTS] = other
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and sha(other) in err and sha(BIG) in err and WEIGHTS.replace('/', '__') in err
    assert not any('weights' in name for name in names(tmp_path / 'to'))


def test_a_cut_connection_is_continued_at_its_end(server, catalog, run, tmp_path):
    catalog()
    server.fault = lambda handler, content: (
        len(server.asked) == 1 and handler.serve(content, cut=100_000) is None and content is BIG
    )
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 0, err
    assert (tmp_path / 'to' / WEIGHTS).read_bytes() == BIG
    assert server.asked[:2] == [(WEIGHTS, None), (WEIGHTS, 'bytes=100000-')]
    assert server.sent == len(BIG) + len(SMALL)  # no byte twice


def test_the_next_command_continues(cut_once, server, run):
    assert run('tiny', '--mirror', server.address, '--to', cut_once)[0] == 0
    assert (cut_once / WEIGHTS).read_bytes() == BIG and names(cut_once) == STORED
    assert server.asked[0] == (WEIGHTS, 'bytes=100000-')


def test_a_server_without_ranges_sends_everything_again(cut_once, server, run):
    server.ranges = False
    assert run('tiny', '--mirror', server.address, '--to', cut_once)[0] == 0
    assert (cut_once / WEIGHTS).read_bytes() == BIG


def test_a_changed_file_is_started_again(cut_once, server, run):
    server.contents[WEIGHTS] = bytes(len(BIG))
    status, _, err = run('tiny', '--mirror', server.address, '--to', cut_once)
    assert status == 1 and sha(bytes(len(BIG))) in err  # nothing of the first version is in it


def test_another_address_does_not_continue(cut_once, catalog, run):
    with serving() as other:
        assert run('tiny', '--mirror', other.address, '--to', cut_once)[0] == 0
        assert other.asked[0] == (WEIGHTS, None)


def test_a_copy_that_fails_is_not_continued_as_a_download(cut_once, server, run, tmp_path):
    other = tmp_path / 'source' / WEIGHTS
    other.parent.mkdir(parents=True)
    other.write_bytes(bytes(len(BIG)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
    try:
        assert run('tiny', '--from', tmp_path / 'source', '--to', cut_once)[0] == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert partial(cut_once) == bytes(150_000)
    status, _, err = run('tiny', '--mirror', server.address, '--to', cut_once)
    assert status == 0, err
    assert server.asked[0] == (WEIGHTS, None) and (cut_once / WEIGHTS).read_bytes() == BIG


@pytest.mark.parametrize('wrong', ['bytes 0-199999/300000', 'bytes 100000-299999/300001', 'nonsense'])
def test_another_range_than_requested_is_not_appended(cut_once, server, run, wrong, monkeypatch):
    monkeypatch.setattr(web, 'ATTEMPTS', 2)
    server.fault = lambda handler, content: (
        len(server.asked) == 1 and handler.serve(content, Content_Range=wrong) is None
    )
    assert run('tiny', '--mirror', server.address, '--to', cut_once)[0] == 0
    assert (cut_once / WEIGHTS).read_bytes() == BIG and server.asked[1] == (WEIGHTS, None)


def test_a_partial_file_that_is_too_long_is_started_again(cut_once, server, run):
    path = cut_once / '.fetch' / 'unet__weights.safetensors.partial'
    path.write_bytes(bytes(500_000))

    def refuse(handler, content):
        if handler.headers.get('Range'):
            handler.send_error(416)
        return bool(handler.headers.get('Range'))

    server.fault = refuse
    web.ATTEMPTS = 2  # restored by the fixture that has patched it
    assert run('tiny', '--mirror', server.address, '--to', cut_once)[0] == 0
    assert (cut_once / WEIGHTS).read_bytes() == BIG


@pytest.mark.parametrize('state', ['', '[]', '{"address": 1}', '{"address": "x", "total": "y"}', '{"z": 1}'])
def test_a_damaged_state_is_not_used(cut_once, server, run, state):
    (cut_once / '.fetch' / 'unet__weights.safetensors.partial.json').write_text(state)
    assert run('tiny', '--mirror', server.address, '--to', cut_once)[0] == 0
    assert server.asked[0] == (WEIGHTS, None) and (cut_once / WEIGHTS).read_bytes() == BIG


def answer(status):
    def fault(handler, content):
        handler.send_error(status)
        return True

    return fault


@pytest.mark.parametrize(('status', 'requests'), [(404, 1), (403, 1), (503, 4)])
def test_a_refusal_is_reported_and_a_passing_one_is_repeated(server, catalog, run, tmp_path, status, requests):
    catalog()
    server.fault = answer(status)
    code, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert code == 1 and f'the server answered {status}' in err and WEIGHTS in err
    assert len(server.asked) == requests and not (tmp_path / 'to').exists()  # no empty folder stays behind


@pytest.mark.parametrize('kind', ['http', 'file', 'ftp'])
def test_a_redirect_to_another_host_is_refused(server, catalog, run, tmp_path, kind):
    catalog()
    with serving() as other:
        target = f'http://localhost:{other.server_port}' if kind == 'http' else f'{kind}://localhost/etc'
        server.fault = redirected(f'{target}/{WEIGHTS}')
        status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
        assert status == 1 and other.asked == []
    assert 'localhost' in err and (kind != 'http' or "redirects to the host 'localhost'" in err)
    assert not (tmp_path / 'to' / 'unet').exists()


def test_a_redirect_on_the_same_host_and_to_a_listed_one_is_followed(server, catalog, run, tmp_path):
    with serving() as other:
        catalog(address=server.address, hosts=('localhost',))
        server.fault = lambda handler, content: redirected(f'http://localhost:{other.server_port}{handler.path}')(
            handler, 0
        )
        assert run('tiny', '--to', tmp_path / 'to')[0] == 0
        assert len(other.asked) == 2
        server.fault = lambda handler, content: redirected(f'{other.address}{handler.path}')(handler, 0)
        assert run('tiny', '--mirror', server.address, '--to', tmp_path / 'again')[0] == 0


@pytest.mark.parametrize('known', [True, False])
def test_a_server_that_sends_forever_is_stopped(server, catalog, run, tmp_path, known):
    catalog(known=known)
    server.fault = lambda handler, content: handler.forever() is None
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to', '--trust')
    assert status == 1
    assert 'sends more than 300,000 bytes' in err if known else 'does not state the size' in err
    time.sleep(0.05)
    assert server.sent < 30_000_000 and not (tmp_path / 'to' / 'unet').exists()
    assert sum(path.stat().st_size for path in (tmp_path / 'to').rglob('*') if path.is_file()) < 1000


@pytest.mark.parametrize(('known', 'size'), [(True, 299_999), (True, 300_001), (False, 400_001), (False, 10**15)])
def test_a_length_other_than_expected_is_refused_before_the_download(server, catalog, run, tmp_path, known, size):
    catalog(known=known)
    server.fault = lambda handler, content: handler.serve(b'x', Content_Length=str(size)) is None
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to', '--trust')
    assert status == 1 and f'offers {size:,} bytes' in err and not (tmp_path / 'to' / 'unet').exists()


def test_a_compressed_answer_is_refused(server, catalog, run, tmp_path):
    catalog()
    server.fault = lambda handler, content: handler.serve(content, Content_Encoding='gzip') is None
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and 'compressed' in err


def test_a_server_that_sends_almost_nothing_is_given_up(server, catalog, run, tmp_path, monkeypatch):
    catalog()
    monkeypatch.setattr(web, 'WINDOW', 0.1)
    server.fault = lambda handler, content: handler.trickle(content) is None
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and 'bytes arrived in' in err


def test_a_server_that_does_not_answer_is_given_up(server, catalog, run, tmp_path, monkeypatch):
    catalog()
    monkeypatch.setattr(web, 'TIMEOUT', 0.1)
    server.fault = lambda handler, content: time.sleep(0.5) or True
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and 'no answer' in err and len(server.asked) == 4


@pytest.mark.parametrize(
    'address',
    [
        *('ftp://host/x', 'file:///etc', 'host/x', 'https://'),
        *('https://me:pw@host/', 'me:pw@host', 'http://h/?token=pw', 'http://h/?token=a@pw'),
    ],
)
def test_other_addresses_are_refused(catalog, run, tmp_path, address):
    catalog()
    status, _, err = run('tiny', '--mirror', address, '--to', tmp_path / 'to')
    assert status == 1 and 'is not an address of a folder' in err and not (tmp_path / 'to').exists()
    assert 'pw' not in err.replace(str(tmp_path), '')


def test_a_file_without_a_hash_is_not_downloaded_over_plain_http(catalog, run, tmp_path):
    catalog(known=False)
    status, _, err = run('tiny', '--mirror', 'http://mirror.invalid/x', '--to', tmp_path / 'to', '--trust')
    assert status == 1 and 'not downloaded over plain HTTP' in err
