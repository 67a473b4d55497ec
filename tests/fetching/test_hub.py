"""`rass-mm fetch` from a local hub, through huggingface_hub."""

import json

import pytest
from fetch_server import BIG, CONTENTS, SMALL, Files, names, serving, sha

from rass_mm.fetching import web

WEIGHTS, CONFIG = CONTENTS
REVISION = 'a' * 40


class Hub(Files):
    """Minimal hub. `server.revision` is the commit in its answers, `server.seen` has the headers of all requests.

    Weights have their SHA-256 as ETag, as in LFS.
    """

    def do_HEAD(self):  # noqa: N802
        self.server.asked.append((f'HEAD {self.path}', None))
        self.server.seen.append(str(self.headers))
        self.answer(self.content(), body=False)

    def do_GET(self):  # noqa: N802
        self.server.asked.append((self.path, self.headers.get('Range')))
        self.server.seen.append(str(self.headers))
        content = self.content()
        if not (self.server.fault and self.server.fault(self, content)):
            self.answer(content, body=True)

    def content(self):
        prefix = f'/me/tiny/resolve/{REVISION}/'
        return self.server.contents.get(self.path.removeprefix(prefix)) if self.path.startswith(prefix) else None

    def answer(self, content, body, cut=None):
        if content is None:
            self.send_error(404)
            return
        start = 0
        if body and self.headers.get('Range'):
            start = int(self.headers['Range'].removeprefix('bytes=').removesuffix('-'))
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(content) - start))
        self.send_header('ETag', f'"{self.server.stated or sha(content)}"')
        self.send_header('X-Repo-Commit', self.server.revision)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.end_headers()
        if body:
            part = content[start:][:cut]
            self.server.sent += len(part)
            self.wfile.write(part)
        if cut is not None:
            self.close()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving(Hub, revision=REVISION, stated=None, seen=[]) as running:
        monkeypatch.setenv('HF_ENDPOINT', running.address)
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hf'))
        yield running


@pytest.fixture
def fetched(hub, catalog, run, tmp_path):
    """Fetches an entry of the hub to `to`; returns status, output and errors."""

    def command(*arguments, **facts):
        catalog(repository='me/tiny', revision=REVISION, **facts)
        return run('tiny', '--to', tmp_path / 'to', *arguments)

    return command


def test_the_files_are_stored_and_nothing_else(hub, fetched, tmp_path):
    status, _, err = fetched()
    assert status == 0, err
    assert (tmp_path / 'to' / WEIGHTS).read_bytes() == BIG and (tmp_path / 'to' / CONFIG).read_bytes() == SMALL
    assert names(tmp_path / 'to') == ['fetched.json', CONFIG, WEIGHTS]
    assert f'/me/tiny at {REVISION}' in json.loads((tmp_path / 'to' / 'fetched.json').read_text())['source']
    assert all(REVISION in path for path, _ in hub.asked)


def test_no_account_is_sent(hub, fetched, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    assert fetched()[0] == 0 and len(hub.seen) == 4  # HEAD and GET of two files
    assert not any('hf_secret' in headers or 'authorization' in headers.lower() for headers in hub.seen)


def test_a_password_in_the_address_of_the_hub_is_not_printed(hub, fetched, monkeypatch):
    monkeypatch.setenv('HF_ENDPOINT', 'https://me:secret@hub.invalid/sub')
    status, out, err = fetched()
    assert status == 1 and "'https://hub.invalid/...' is not an address of" in err and 'secret' not in out + err


def test_another_content_is_refused(hub, fetched, tmp_path):
    hub.contents[WEIGHTS] = bytes(len(BIG))
    status, _, err = fetched()
    assert status == 1 and sha(BIG) in err and sha(bytes(len(BIG))) in err
    assert not any(name.endswith('weights.safetensors') for name in names(tmp_path / 'to'))
    hub.contents[WEIGHTS] = BIG
    assert fetched()[0] == 0 and (tmp_path / 'to' / WEIGHTS).read_bytes() == BIG


def test_content_that_differs_from_what_the_hub_states_is_refused(hub, fetched, tmp_path):
    hub.stated = 'b' * 64
    status, _, err = fetched('--trust', known=False)
    assert status == 1 and 'differs from the SHA-256 that the hub states' in err
    assert not (tmp_path / 'to' / 'unet').exists()


def test_another_revision_is_refused(hub, fetched, tmp_path):
    hub.revision = 'c' * 40
    status, _, err = fetched()
    assert status == 1 and 'c' * 40 in err and not (tmp_path / 'to' / 'unet').exists() and hub.sent == 0


@pytest.mark.parametrize('known', [True, False])
def test_another_length_is_refused_before_the_download(hub, fetched, known):
    hub.contents[WEIGHTS] = BIG + bytes(200_000)
    status, _, err = fetched('--trust', known=known)
    assert status == 1 and 'offers 500,000 bytes' in err and hub.sent == 0


def test_the_cache_of_the_hub_is_used_and_checked(hub, fetched, tmp_path):
    snapshot = tmp_path / 'hf' / 'models--me--tiny' / 'snapshots' / REVISION
    blobs = tmp_path / 'hf' / 'models--me--tiny' / 'blobs'
    blobs.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (blobs / sha(content)).write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blobs / sha(content))
    assert fetched()[0] == 0 and hub.asked == []
    assert not (tmp_path / 'to' / WEIGHTS).is_symlink() and (tmp_path / 'to' / WEIGHTS).read_bytes() == BIG
    (tmp_path / 'to' / CONFIG).unlink()
    (blobs / sha(SMALL)).write_bytes(b'{"width": 9}\n')
    status, _, err = fetched()
    assert status == 1 and sha(SMALL) in err


def test_a_missing_file_is_named(hub, fetched):
    del hub.contents[WEIGHTS]
    status, _, err = fetched()
    assert status == 1 and WEIGHTS in err and 'error: ' in err


def test_a_redirect_to_another_host_is_refused(hub, fetched, tmp_path):
    with serving() as other:

        def redirect(handler, content):
            handler.send_response(302)
            handler.send_header('Location', f'http://localhost:{other.server_port}/{WEIGHTS}')
            handler.send_header('Content-Length', '0')
            handler.end_headers()
            return True

        hub.fault = redirect
        status, _, err = fetched()
        assert status == 1 and "redirects to the host 'localhost'" in err and other.asked == []
    assert not (tmp_path / 'to' / 'unet').exists()


def test_a_hub_that_sends_forever_is_stopped(hub, fetched, tmp_path):
    hub.fault = lambda handler, content: handler.forever() is None
    status, _, err = fetched()
    assert status == 1 and 'sends more than 300,000 bytes' in err and not (tmp_path / 'to' / 'unet').exists()


def test_a_cut_download_is_continued_by_the_next_command(hub, fetched, tmp_path, monkeypatch):
    monkeypatch.setattr(web, 'ATTEMPTS', 1)
    hub.fault = lambda handler, content: handler.answer(content, True, 100_000) is None
    status, _, err = fetched()
    assert status == 1 and 'cut after 100,000 of 300,000 bytes' in err and not (tmp_path / 'to' / 'unet').exists()
    hub.fault = None
    hub.asked.clear()
    assert fetched()[0] == 0 and (tmp_path / 'to' / WEIGHTS).read_bytes() == BIG
    assert [spans for path, spans in hub.asked if path.endswith(WEIGHTS) and not path.startswith('HEAD')] == [
        'bytes=100000-'
    ]
