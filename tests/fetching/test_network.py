"""`rass-mm fetch` with a network that fails: no route, no name, broken TLS."""

import errno
import socket
import ssl
from http.client import HTTPConnection, HTTPResponse

import pytest
from fetch_server import BIG, CONTENTS, partial

from rass_mm.fetching import web

WEIGHTS = next(iter(CONTENTS))
TROUBLE = {
    'no route': OSError(errno.EHOSTUNREACH, 'No route to host'),
    'no network': OSError(errno.ENETUNREACH, 'Network is unreachable'),
    'TLS': ssl.SSLError(1, 'decryption failed or bad record mac'),
    'name': socket.gaierror(socket.EAI_AGAIN, 'Temporary failure in name resolution'),
    'proxy': OSError('Tunnel connection failed: 502 Bad Gateway'),
}


def failing(monkeypatch, owner, name, error, calls):
    """Replaces a function by one that raises an error in these calls, counted from 1. Returns the list of calls."""
    original, made = getattr(owner, name), []

    def replacement(*arguments, **options):
        made.append(1)
        if len(made) in calls:
            raise error
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, replacement)
    return made


@pytest.mark.parametrize('error', TROUBLE.values(), ids=TROUBLE)
@pytest.mark.parametrize(
    ('owner', 'name'),
    [(socket, 'create_connection'), (HTTPConnection, 'getresponse'), (HTTPResponse, 'read1')],
    ids=['connect', 'answer', 'body'],
)
def test_trouble_of_the_network_after_the_first_bytes_is_a_cut(cut_once, server, run, monkeypatch, owner, name, error):
    monkeypatch.setattr(web, 'ATTEMPTS', 2)
    failing(monkeypatch, owner, name, error, [1])
    status, _, err = run('tiny', '--mirror', server.address, '--to', cut_once)
    assert status == 0, err
    assert (cut_once / WEIGHTS).read_bytes() == BIG


@pytest.mark.parametrize(
    ('error', 'attempts'),
    [
        (TROUBLE['no route'], 4),
        (TROUBLE['no network'], 4),
        (TROUBLE['TLS'], 1),
        (TROUBLE['name'], 1),
        (TROUBLE['proxy'], 1),
        (ssl.SSLCertVerificationError(1, 'certificate verify failed'), 1),
    ],
)
def test_a_server_that_cannot_be_reached_is_reported(server, catalog, run, tmp_path, monkeypatch, error, attempts):
    catalog()
    made = failing(monkeypatch, socket, 'create_connection', error, range(9))
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and str(error) in err and len(made) == attempts and not (tmp_path / 'to').exists()


def test_a_certificate_that_is_not_valid_is_final(cut_once, server, run, monkeypatch):
    monkeypatch.setattr(web, 'ATTEMPTS', 4)
    error = ssl.SSLCertVerificationError(1, 'certificate verify failed')
    made = failing(monkeypatch, socket, 'create_connection', error, [1])
    status, _, err = run('tiny', '--mirror', server.address, '--to', cut_once)
    assert status == 1 and 'cannot be reached' in err and len(made) == 1 and partial(cut_once) == BIG[:100_000]
