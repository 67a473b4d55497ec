"""The app behind nginx with the server block of docs/app.md: password, public name, addresses of results."""

import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from app_process import options_of, running_app
from app_requests import call, upload
from commands import ROOT

NGINX = shutil.which('nginx', path='/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin')
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not NGINX, reason='requires nginx')]
NAME, USER, WORD = 'photos.example.org', 'someone', 'secret'


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


@pytest.fixture
def proxied(model_files, tmp_path, monkeypatch):
    """Address of the app behind nginx."""
    (block,) = re.findall(
        r'^ *location / \{.*?\n *\}', (ROOT / 'docs' / 'app.md').read_text(), re.DOTALL | re.MULTILINE
    )
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    port = free_port()
    with running_app([*options_of(model_files), '--host-name', NAME], temporary) as app:
        users = tmp_path / 'users'
        users.write_text(f'{USER}:{{PLAIN}}{WORD}\n')
        block = block.replace('/etc/nginx/photos.htpasswd', str(users)).replace(
            'http://127.0.0.1:7860', app.address[:-1]
        )
        (tmp_path / 'nginx.conf').write_text(
            f'daemon off; pid {tmp_path}/pid; error_log stderr; worker_processes 1; events {{}}\n'
            f'http {{ access_log off; client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;\n'
            f'fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;\n'
            f'server {{ listen 127.0.0.1:{port}; server_name {NAME};\n{block}\n}} }}\n'
        )
        tmp_path.chmod(0o755)
        command = [NGINX, '-p', str(tmp_path), '-c', str(tmp_path / 'nginx.conf'), '-g', 'user root;']
        with (tmp_path / 'nginx.log').open('w') as log:
            server = subprocess.Popen(command, stderr=log)
        found = socket.getaddrinfo
        monkeypatch.setattr(
            socket, 'getaddrinfo', lambda host, *rest: found('127.0.0.1' if host == NAME else host, *rest)
        )
        try:
            wait_for(port)
            yield f'http://{NAME}:{port}/'
        finally:
            server.terminate()
            server.wait()


def wait_for(port):
    for _ in range(100):
        with socket.socket() as client:
            if not client.connect_ex(('127.0.0.1', port)):
                return
        time.sleep(0.1)
    raise AssertionError('nginx does not answer')


def test_password_upload_call_and_download(proxied, photo, monkeypatch):
    with pytest.raises(urllib.error.HTTPError, match='401'):
        urllib.request.urlopen(proxied, timeout=60)
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    passwords.add_password(None, proxied, USER, WORD, is_authenticated=True)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
    monkeypatch.setattr(urllib.request, 'urlopen', opener.open)
    assert b'gradio' in urllib.request.urlopen(proxied, timeout=60).read()
    results = call(proxied, 'restore', upload(proxied, photo))
    addresses = re.findall(r"http://[^'\"]+", str(results))
    assert addresses and all(address.startswith(f'http://{NAME}/gradio_api/file=') for address in addresses)
    port = proxied.rsplit(':', 1)[1].rstrip('/')
    with urllib.request.urlopen(addresses[0].replace(NAME, f'{NAME}:{port}', 1), timeout=60) as answer:
        assert answer.status == 200 and answer.read(8).startswith((b'\x89PNG', b'RIFF', b'\xff\xd8'))
