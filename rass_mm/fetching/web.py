"""Source of files: an HTTP(S) address. Downloads are resumed, bounded in size, and stay on the given hosts.

Only bodies are bounded. `http.client` reads status lines and trailers itself: a server that sends interim answers or
trailer lines without end keeps the command waiting until the user stops it, but writes nothing to the disk.
"""

import json
import os
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request

from rass_mm.errors import DownloadError, clipped
from rass_mm.fetching.hosts import check_secure, folder_address, opener_for
from rass_mm.fetching.places import staged, state_file, writable
from rass_mm.files.atomic import write_text
from rass_mm.version import __version__
from rass_mm_cli.catalog import RemoteFile

TIMEOUT = 60.0
"""Seconds without any data after which a connection counts as cut."""
ATTEMPTS, CUTS, PAUSE = 4, 50, 2.0
"""Connections per file that may be cut: in succession without new data, and in total. Seconds before the second one."""
WINDOW, LEAST = 300.0, 64 * 1024
"""A connection that brings fewer than `LEAST` bytes in `WINDOW` seconds is given up."""
BLOCK = 2**20
PASSING = (408, 429, 500, 502, 503, 504)
"""Status codes after which the request is repeated."""
RESUME = 'Run the same command again to resume.'


class _CutError(Exception):
    """The connection ended before the file was complete."""


class _ChangedError(_CutError):
    """The partial file cannot be continued, because the server has another file or no ranges."""


@dataclass
class _State:
    """Origin of a partial file: address, validator of its version (ETag or date) and size of the whole file."""

    address: str
    validator: str | None = None
    total: int | None = None


class WebSource:
    """Downloads the files of an entry from below an address.

    Args:
        address: address of the folder, `http://` or `https://`.
        hosts: further hosts to which the server may redirect.

    Raises:
        DownloadError: the address is not an HTTP(S) address, or contains a user name or a query.
    """

    def __init__(self, address: str, hosts: tuple[str, ...] = ()) -> None:
        parts = folder_address(address)
        self.address = address.rstrip('/')
        self.opener = opener_for(parts.hostname, hosts, parts.scheme == 'https')

    def __str__(self) -> str:
        return self.address

    def obtain(self, file: RemoteFile, folder: Path, report: Callable[[int], None]) -> Path:
        """Downloads a file to the staging folder and returns its path there. A partial file is continued.

        Args:
            file: the file.
            folder: the target folder.
            report: called with the number of bytes that were received so far.

        Raises:
            DownloadError: the server does not have the file, sends another length or too many bytes, redirects to
                another host, or the connection is cut several times.
        """
        check_secure(self.address, file)
        partial = staged(folder, file.name)
        with os.fdopen(writable(partial), 'r+b') as target:
            failures, before = 0, -1
            for cut in range(1, CUTS + 1):
                try:
                    self._continue(file, target, partial, report)
                    return partial
                except _CutError as error:
                    target.flush()
                    size = target.seek(0, os.SEEK_END)
                    failures = 1 if size > before else failures + 1
                    before = max(before, size)
                    if failures >= ATTEMPTS or cut == CUTS:
                        raise DownloadError(
                            f'{self.file_address(file)}: {error}. {size:,} bytes are kept. {RESUME}'
                        ) from None
                    time.sleep(PAUSE * failures)
        raise AssertionError('the last cut raises an error')

    def discard(self, file: RemoteFile, folder: Path) -> None:
        """Removes the download of a file that is not the expected one."""
        partial = staged(folder, file.name)
        partial.unlink(missing_ok=True)
        state_file(partial).unlink(missing_ok=True)

    def file_address(self, file: RemoteFile) -> str:
        """Returns the address of a file."""
        return f'{self.address}/{quote(file.name)}'

    def _continue(self, file: RemoteFile, target: BinaryIO, partial: Path, report: Callable[[int], None]) -> None:
        """Downloads the missing bytes of a file over one connection."""
        address, done = self.file_address(file), target.seek(0, os.SEEK_END)
        state = _read_state(partial)
        if state.address != address or not (state.validator or file.known):
            state, done = _State(address), 0
        if done and done == state.total:
            return  # an earlier command ended before it checked the file
        try:
            response = self._request(address, done, state.validator)
        except _ChangedError:
            state_file(partial).unlink(missing_ok=True)
            raise
        with response:
            if response.status == 206 and not _continues(response, done, state):
                state_file(partial).unlink(missing_ok=True)
                raise _ChangedError('the server sent another range than requested')
            if response.status != 206:
                done = 0  # the server ignores ranges, or the file has changed
            total = _total(response, done)
            self.check_size(file, total, self.address)
            target.truncate(done)
            target.seek(done)
            state = _State(address, _validator(response), total)
            write_text(state_file(partial), json.dumps(vars(state)))
            _receive(response, target, done, file.limit if total is None else total, report)
        size = target.seek(0, os.SEEK_END)
        if total is not None and size < total:
            raise _CutError(f'the connection was cut after {size:,} of {total:,} bytes')

    def _request(self, address: str, done: int, validator: str | None) -> HTTPResponse:
        """Opens the connection. With `done`, it asks for the bytes from there, if the file is still the same."""
        headers = {'User-Agent': f'rass_mm/{__version__}', 'Accept-Encoding': 'identity'}
        if done:
            headers['Range'] = f'bytes={done}-'
            if validator:
                headers['If-Range'] = validator
        try:
            return self.opener.open(Request(address, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            error.close()
            if error.code == 416 and done:
                raise _ChangedError('the partial file does not belong to this file') from None
            answer = f'the server answered {error.code} {clipped(str(error.reason), 200)}'
            if error.code in PASSING:
                raise _CutError(answer) from None
            raise DownloadError(f'{address}: {answer}.') from None
        except URLError as error:
            if _passes(error.reason, done):
                raise _CutError(f'no connection ({error.reason})') from None
            raise DownloadError(
                f'{address} cannot be reached: {error.reason}. Check the address and the network.'
            ) from None
        except (HTTPException, OSError) as error:
            raise _CutError(f'no answer ({clipped(str(error), 200) or type(error).__name__})') from None
        except ValueError as error:  # of an address in a redirect that cannot be parsed
            raise DownloadError(
                f'{address}: the server redirects to an address that is not valid ({clipped(str(error), 200)}). Choose '
                'another source with --mirror or --from.'
            ) from None

    def check_size(self, file: RemoteFile, size: int | None, place: str) -> None:
        """Checks the size of a file that a server states, or None, against the catalog.

        Raises:
            DownloadError: the size differs or is too large, or neither size nor hash is known.
        """
        if size is None:
            if file.known:
                return
            raise DownloadError(
                f'{place} does not state the size of {file.name}, and its hash is not known, so that a cut file would '
                'not be noticed. Use another source.'
            )
        if size > file.limit or (file.size not in (None, size) and len(file.sha256) < 2):
            most = f'{file.size:,}' if file.size is not None else f'at most {file.limit:,}'
            raise DownloadError(f'{place} offers {size:,} bytes for {file.name}, but {most} were expected.')


def _total(response: HTTPResponse, done: int) -> int | None:
    """Returns the size of the whole file as the server states it, or None. The first `done` bytes are there."""
    if response.headers.get('Content-Encoding', '').strip().lower() not in ('', 'identity'):
        raise DownloadError(
            f'{response.url}: the server sends the file compressed, although this was not requested. Choose another '
            'source with --mirror or --from.'
        )
    return None if response.length is None else response.length + done


def _receive(response: HTTPResponse, target: BinaryIO, done: int, limit: int, report: Callable[[int], None]) -> None:
    """Writes the body of a response to a file that already has `done` bytes.

    Raises:
        DownloadError: the server sends more than `limit` bytes, or almost nothing for minutes.
    """
    since, recent = time.monotonic(), 0
    while block := _read(response, done):
        done, recent = done + len(block), recent + len(block)
        if done > limit:
            target.truncate(0)
            raise DownloadError(
                f'{response.url}: the server sends more than {limit:,} bytes. The download was stopped and removed.'
            )
        target.write(block)
        report(done)
        if time.monotonic() - since > WINDOW:
            if recent < LEAST:
                raise DownloadError(f'{response.url}: only {recent:,} bytes arrived in {WINDOW:.0f} s. {RESUME}')
            since, recent = time.monotonic(), 0


def _read(response: HTTPResponse, done: int) -> bytes:
    """Returns the next bytes of a body, of which `done` bytes were received. Errors of the network are cuts."""
    try:
        return response.read1(BLOCK)
    except (HTTPException, OSError) as error:
        cause = str(error) or type(error).__name__
        raise _CutError(f'the connection was cut after {done:,} bytes ({cause})') from None


def _passes(reason: object, done: int) -> bool:
    """Returns whether a connection that failed for a reason is tried again. `done` bytes were received before.

    A name that is not found, a failed TLS handshake and a refusal of the proxy are final unless bytes were received.
    """
    if not isinstance(reason, OSError) or isinstance(reason, ssl.SSLCertVerificationError):
        return False
    named = reason.errno is not None and not isinstance(reason, (socket.gaierror, ssl.SSLError))
    return named or done > 0 or isinstance(reason, (ConnectionError, TimeoutError))


def _continues(response: HTTPResponse, done: int, state: _State) -> bool:
    """Returns whether a partial response continues the same version of a file at byte `done`."""
    unit, _, rest = response.headers.get('Content-Range', '').partition(' ')
    span, _, total = rest.partition('/')
    same = state.validator is None or _validator(response) in (None, state.validator)
    return unit == 'bytes' and span.startswith(f'{done}-') and same and total in ('*', str(state.total or total))


def _validator(response: HTTPResponse) -> str | None:
    """Returns the strong ETag or the date of the last change of a file, or None."""
    tag = response.headers.get('ETag')
    if tag and not tag.startswith('W/'):
        return tag
    return response.headers.get('Last-Modified')


def _read_state(partial: Path) -> _State:
    """Reads the state of a partial file. A missing or damaged state belongs to no address."""
    with suppress(OSError, ValueError, TypeError):
        state = _State(**json.loads(state_file(partial).read_text(encoding='utf-8')))
        texts = isinstance(state.address, str) and isinstance(state.validator, str | None)
        if texts and isinstance(state.total, int | None) and '\n' not in (state.validator or ''):
            return state
    return _State('')
