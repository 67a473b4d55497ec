"""Download commands of the known bases, run with a local hub and compared with the docs."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from commands import ROOT

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.text import TextEncoder
from rass_mm.errors import BaseFolderError
from rass_mm_cli.bases import FILES, SD21_BASE, SOURCES

NEWEST = 'c' * 40
ALL = [file for part in FILES for file in part]


class Hub(BaseHTTPRequestHandler):
    """Minimal hub server for the download of one repository."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        server, path = self.server, self.path.split('?')[0].lstrip('/')
        server.asked.append(path)
        commit = server.source.revision or NEWEST
        prefix = f'{server.source.repository}/resolve/{commit}/'
        if path.startswith('api/models/'):
            files = [str(file.relative_to(server.folder)) for file in server.folder.rglob('*') if file.is_file()]
            sizes = [(server.folder / file).stat().st_size for file in files]
            tree = [{'type': 'file', 'path': f, 'size': n, 'oid': NEWEST} for f, n in zip(files, sizes, strict=True)]
            info = {'id': server.source.repository, 'sha': commit, 'siblings': [{'rfilename': f} for f in files]}
            content = json.dumps(tree if '/tree/' in path else info).encode()
        elif path.startswith(prefix):
            content = (server.folder / path.removeprefix(prefix)).read_bytes()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        self.send_header('ETag', f'"{hash(path):x}"')
        self.send_header('X-Repo-Commit', commit)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments):
        """Logs nothing; requests are recorded in `asked`."""


@pytest.fixture
def hub(tiny_base, tmp_path):
    """Server with a complete base and an unneeded file; tests set its `source`."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    server.folder, server.asked = Path(shutil.copytree(tiny_base, tmp_path / 'hub')), []
    (server.folder / 'unet' / 'diffusion_pytorch_model.bin').write_bytes(b'x')
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize('source', SOURCES, ids=lambda source: source.folder.name)
def test_the_command_fetches_a_whole_base_and_nothing_else(hub, source, tmp_path):
    hub.source = source
    done = subprocess.run(
        source.command(),
        shell=True,
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env={
            **os.environ,
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'HF_ENDPOINT': f'http://127.0.0.1:{hub.server_port}',
            'HF_HOME': str(tmp_path / 'home'),
            'HF_HUB_DISABLE_TELEMETRY': '1',
        },
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / source.folder
    found = sorted(str(f.relative_to(folder)) for f in folder.rglob('*') if f.is_file() and '.cache' not in f.parts)
    assert found == sorted(ALL)
    assert TextEncoder(read_base(folder)).token_ids('road')
    asked = [path for path in hub.asked if path.startswith(f'api/models/{source.repository}')]
    assert any(path.endswith('/main') for path in asked) == (source.revision is None), asked


def test_error_of_a_missing_base_has_the_command_first_with_revision_and_every_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in SOURCES:
        with pytest.raises(BaseFolderError) as caught:
            read_base(source.folder)
        message = str(caught.value)
        first = message.split('  * ')[1]
        words = shlex.split(first.split('\n', 1)[1])
        assert words[:3] == ['hf', 'download', source.repository]
        assert [word for word in words if '/' in word][-len(ALL) :] == ALL
        assert words[words.index('--local-dir') + 1] == str(source.folder)
        assert (source.revision or 'no pinned revision') in message


def test_error_of_another_folder_names_the_small_base_first_and_downloads_elsewhere(tmp_path):
    with pytest.raises(BaseFolderError) as caught:
        read_base(tmp_path / 'mine')
    ways = str(caught.value).split('  * ')[1:]
    assert f'rass-mm make-base {tmp_path}/mine' in ways[0]
    assert shlex.split(ways[-1].split('\n', 1)[1])[:2] == ['hf', 'download']
    assert f'--local-dir {SD21_BASE.folder}' in ways[-1]


def test_docs_have_the_command_and_name_the_other_bases():
    page = ROOT.joinpath('docs', 'reproduce_paper.md').read_text()
    lines = [line.strip() for line in page.splitlines()]
    command = [line.strip() for line in SD21_BASE.command().splitlines()]
    start = lines.index(command[0])
    assert lines[start : start + len(command)] == command
    for source in SOURCES:
        assert source.repository in page and str(source.folder.name) in page
