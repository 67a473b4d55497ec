"""Entries that can be fetched, a server with their files, and the command."""

import pytest
from fetch_server import BIG, entry_of, partial, serving

from rass_mm.fetching import web
from rass_mm_cli.catalog import ENTRIES
from rass_mm_cli.main import main


@pytest.fixture(autouse=True)
def direct(monkeypatch, tmp_path):
    """No proxy, no waiting, no cache of another test."""
    for name in ('http_proxy', 'https_proxy', 'all_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(web, 'PAUSE', 0.0)
    monkeypatch.setenv('RASS_MM_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def catalog(monkeypatch):
    """Adds an entry to the catalog, see `entry_of`."""

    def add(**facts):
        entry = entry_of(**facts)
        monkeypatch.setitem(ENTRIES, entry.name, entry)
        return entry

    return add


@pytest.fixture
def run(capsys):
    """Runs `rass-mm fetch` and returns its status, output and errors."""

    def command(*arguments):
        capsys.readouterr()
        status = main(['fetch', *map(str, arguments)])
        return status, *capsys.readouterr()

    return command


@pytest.fixture
def cut_once(server, catalog, run, tmp_path, monkeypatch):
    """A folder in which a command has ended after the first 100,000 bytes of the weights."""
    catalog()
    monkeypatch.setattr(web, 'ATTEMPTS', 1)
    server.fault = lambda handler, content: handler.serve(content, cut=100_000) is None
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and 'cut after 100,000' in err and 'Run the same command again to resume.' in err
    assert partial(tmp_path / 'to') == BIG[:100_000] and not (tmp_path / 'to' / 'unet').exists()
    server.fault = None
    server.asked.clear()
    return tmp_path / 'to'
