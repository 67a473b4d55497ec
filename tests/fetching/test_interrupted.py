"""`rass-mm fetch` on a full disk, twice at the same time, and killed."""

import resource
import subprocess
import sys
import threading
import time

from commands import environment_of
from fetch_server import BIG, CONTENTS, names

from rass_mm.fetching import fetch as fetching
from rass_mm.fetching import web
from rass_mm_cli.catalog import ENTRIES

WEIGHTS, CONFIG = CONTENTS
STORED = ['fetched.json', CONFIG, WEIGHTS]


def test_too_little_space_is_noticed_before_the_download(server, catalog, run, tmp_path, monkeypatch):
    catalog()
    monkeypatch.setattr(fetching.shutil, 'disk_usage', lambda folder: type('Usage', (), {'free': 1000})())
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and 'GB are needed' in err and server.asked == []


def test_a_failed_write_keeps_the_partial_file(server, catalog, run, tmp_path):
    catalog()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
    try:
        status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 1 and 'cannot be' in err and not (tmp_path / 'to' / 'unet').exists()
    assert run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')[0] == 0
    assert (tmp_path / 'to' / WEIGHTS).read_bytes() == BIG


def test_a_second_command_for_the_folder_is_refused_and_the_first_is_not_disturbed(server, catalog, run, tmp_path):
    catalog()
    started, resume = threading.Event(), threading.Event()

    def wait(handler, content):
        started.set()
        resume.wait(20)

    server.fault = wait
    results = []
    arguments = (ENTRIES['tiny'], tmp_path / 'to', web.WebSource(server.address), lambda plan: None)
    first = threading.Thread(target=lambda: results.append(fetching.fetch(*arguments)))
    first.start()
    assert started.wait(20)
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    resume.set()
    first.join(20)
    assert status == 1 and 'is in use by process' in err and '--to' in err
    assert results and names(tmp_path / 'to') == STORED and len(server.asked) == 2


def test_a_file_that_is_created_during_the_download_is_not_overwritten(server, catalog, run, tmp_path):
    catalog()
    mine = tmp_path / 'to' / WEIGHTS

    def create(handler, content):
        mine.parent.mkdir(parents=True)
        mine.write_text('mine')

    server.fault = create
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')
    assert status == 1 and f'{mine} was created meanwhile' in err and mine.read_text() == 'mine'
    mine.unlink()
    server.fault = None
    assert run('tiny', '--mirror', server.address, '--to', tmp_path / 'to')[0] == 0
    assert mine.read_bytes() == BIG and [name for name, _ in server.asked] == [WEIGHTS, CONFIG]  # nothing is lost


def test_a_killed_command_is_continued(server, run, tmp_path):
    server.contents = {'osediff.pkl': BIG}
    ended = threading.Event()

    def stop_in_the_middle(handler, content):
        if handler.headers.get('Range') is None:
            handler.serve(content, cut=200_000)
            ended.wait(60)
            return True

    server.fault = stop_in_the_middle
    options = ['--mirror', server.address, '--to', tmp_path / 'to', '--accept-licence', '--trust']
    command = [sys.executable, '-m', 'rass_mm_cli', 'fetch', 'osediff', *map(str, options)]
    process = subprocess.Popen(command, env=environment_of(), stderr=subprocess.DEVNULL)
    file = tmp_path / 'to' / '.fetch' / 'osediff.pkl.partial'
    limit = time.monotonic() + 60
    while not file.exists() or file.stat().st_size < 150_000:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    ended.set()
    kept = file.stat().st_size
    assert [path for path in names(tmp_path / 'to') if '.fetch' not in path] in ([], ['.rass_mm.lock'])
    assert run('osediff', *options)[0] == 0
    assert server.asked[-1] == ('osediff.pkl', f'bytes={kept}-')
    assert (tmp_path / 'to' / 'osediff.pkl').read_bytes() == BIG
