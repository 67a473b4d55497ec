"""A local HTTP server with faults, and entries of the catalog whose files it serves."""

import hashlib
import random
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rass_mm_cli.catalog import Entry, Licence, RemoteFile

BIG = random.Random(0).randbytes(300_000)
MOST = 64 * 2**20
SMALL = b'{"width": 8}\n'
CONTENTS = {'unet/weights.safetensors': BIG, 'unet/config.json': SMALL}


class Files(BaseHTTPRequestHandler):
    """Serves `server.contents` with ranges. `server.fault(handler, content)` may answer in its place."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        server, name = self.server, self.path.lstrip('/')
        server.asked.append((name, self.headers.get('Range')))
        if server.fault and server.fault(self, server.contents.get(name)):
            return
        self.serve(server.contents.get(name))

    def serve(self, content, cut=None, **headers):
        """Sends a file, from the requested byte on if its version is still the same, or only its first `cut` bytes."""
        if content is None:
            self.send_error(404)
            return
        tag, start = f'"{hashlib.sha256(content).hexdigest()[:16]}"', 0
        if self.headers.get('Range') and self.headers.get('If-Range', tag) == tag and self.server.ranges:
            start = int(self.headers['Range'].removeprefix('bytes=').removesuffix('-'))
        self.send_response(206 if start else 200)
        sent = {'ETag': tag, 'Content-Length': str(len(content) - start)}
        if start:
            sent['Content-Range'] = f'bytes {start}-{len(content) - 1}/{len(content)}'
        for name, value in (sent | {name.replace('_', '-'): value for name, value in headers.items()}).items():
            self.send_header(name, value)
        self.end_headers()
        part = content[start:] if cut is None else content[start : start + cut]
        self.server.sent += len(part)
        self.wfile.write(part)
        if cut is not None:
            self.close()

    def close(self):
        """Closes the connection after this answer."""
        self.wfile.flush()
        self.close_connection = True

    def forever(self):
        """Sends bytes in chunks until the client closes the connection, or `MOST` so that no fault fills the disk."""
        self.send_response(200)
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        try:
            while not self.server.ended and self.server.sent < MOST:
                self.wfile.write(b'10000\r\n' + bytes(0x10000) + b'\r\n')
                self.server.sent += 0x10000
        except OSError:
            pass
        self.close_connection = True

    def trickle(self, content):
        """Sends one byte at a time."""
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        try:
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.01)
        except OSError:
            self.close_connection = True

    def log_message(self, *arguments):
        """Logs nothing; requests are recorded in `asked`."""


@contextmanager
def serving(handler=Files, **attributes):
    """Starts a server on a free port of 127.0.0.1. It has `address`, `asked`, `sent`, `contents`, `fault`, `ranges`."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    defaults = {'asked': [], 'sent': 0, 'contents': dict(CONTENTS), 'fault': None, 'ranges': True, 'ended': False}
    for name, value in {**defaults, **attributes}.items():
        setattr(server, name, value)
    server.address = f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.ended = True
        server.shutdown()
        server.server_close()


def sha(content):
    return hashlib.sha256(content).hexdigest()


def entry_of(name='tiny', known=True, forbids=None, contents=None, most=400_000, **attributes):
    """An entry with the files of `contents`; `known` says whether it has their sizes and hashes."""
    files = []
    for file, content in (contents or CONTENTS).items():
        facts = {'size': len(content), 'sha256': (sha(content),)} if known else {}
        files.append(RemoteFile(file, most=most, **facts))
    licence = Licence('MIT' if forbids is None else 'Some', forbids)
    facts = {'place': f'weights/{name}', 'use': f'--base {name}', 'evidence': 'Made up.', **attributes}
    return Entry(name=name, title='Tiny', licence=licence, files=tuple(files), **facts)


def redirected(target):
    """A fault that answers with a redirect."""

    def answer(handler, content):
        handler.send_response(302)
        handler.send_header('Location', target)
        handler.send_header('Content-Length', '0')
        handler.end_headers()
        return True

    return answer


def names(folder):
    """Names of all files and links below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file() or path.is_symlink())


def partial(folder):
    """Content of the partial file of the weights."""
    return (folder / '.fetch' / 'unet__weights.safetensors.partial').read_bytes()
