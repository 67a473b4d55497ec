"""Eight clients, some of whose files are hostile: no fault of the server, flat memory, no files left."""

import contextlib
import random
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import pytest
from app_process import memory_of, options_of, running_app
from app_requests import call, upload
from PIL import Image

pytestmark = pytest.mark.slow

CLIENTS, ROUNDS, HOSTILE = 8, 40, 3  # of the 40 files of a client, 3 are hostile
KEEP = 0.05
"""Minutes that files are kept."""


class Client:
    """A client that uploads files and calls endpoints at random, and counts the answers."""

    def __init__(self, address, number, photo, hostile):
        self.address, self.photo, self.hostile = address, photo, list(hostile)
        self.random = random.Random(number)
        self.counts = {'good': 0, 'refused': 0, 'wrong': 0, 'status': []}

    def run(self, rounds):
        wicked_rounds = self.random.sample(range(rounds), HOSTILE)
        for number in range(rounds):
            wicked = number in wicked_rounds
            path = self.random.choice(self.hostile) if wicked else self.photo
            try:
                self.call(upload(self.address, path))
                self.counts['wrong' if wicked else 'good'] += 1
            except RuntimeError as error:
                self.counts['refused' if wicked else 'wrong'] += 1
                if not wicked:
                    raise AssertionError(str(error)) from error
            except urllib.error.HTTPError as error:
                self.counts['status'].append((error.code, path.name))

    def call(self, given):
        kind = self.random.choice(['restore', 'segment', 'baseline', 'attention', 'degrade', 'folder'])
        if kind == 'degrade':
            call(self.address, 'degrade', given, 'recipe', 1, self.random.randrange(1000), 0, 1, 0, 0, 100)
        elif kind == 'folder':
            _, report = call(self.address, 'folder', [given], ['restored', 'labels'])
            if report['failed']:
                raise RuntimeError(str(report['failed']))
        elif kind == 'attention':
            call(self.address, 'attention', given, 'sky')
        elif kind == 'baseline':
            call(self.address, 'segment', given, 'baseline')
        else:
            call(self.address, kind, given, *(['segmentor'] if kind == 'segment' else []))


def test_eight_clients_with_hostile_files(model_files, photo, hostile, tmp_path, capsys):
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    limits = ['--max-pixels', 250_000, '--max-megabytes', 1, '--keep', KEEP]
    with running_app([*options_of(model_files), *limits], temporary) as app:
        clients = [Client(app.address, number, photo, hostile) for number in range(CLIENTS)]
        memory, ended = [], threading.Event()
        watcher = threading.Thread(target=watch, args=(app.pid, memory, ended))
        watcher.start()
        with ThreadPoolExecutor(CLIENTS) as pool:
            started = time.monotonic()
            list(pool.map(lambda client: client.run(ROUNDS), clients))
            seconds = time.monotonic() - started
        ended.set()
        watcher.join()
        counts = {name: sum(client.counts[name] for client in clients) for name in ('good', 'refused', 'wrong')}
        statuses = [status for client in clients for status in client.counts['status']]
        time.sleep(3 * KEEP * 60 + 5)
        left = [file for file in temporary.rglob('*') if file.is_file()]
        log = app.log.read_text()
    with capsys.disabled():
        third = len(memory) // 3
        print(
            f'\n{counts}, {statuses} in {seconds:.0f} s; memory after a third {memory[third]:.0f} MB, '
            f'at the end {memory[-1]:.0f} MB; {len(left)} files left'
        )
    assert counts['wrong'] == 0 and counts['refused'] > 0 and set(statuses) <= {(413, 'heavy.bmp')}
    assert counts['good'] + counts['refused'] + len(statuses) == CLIENTS * ROUNDS
    assert memory[-1] < 1.1 * memory[third] + 20
    assert {file.suffix for file in left} <= {'.png', '.lock', ''} and len(left) <= 2 * 8 + 1, left  # the examples
    assert 'Unexpected error' not in log


def test_the_app_ends_while_a_model_computes(model_files, tmp_path):
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    large = tmp_path / 'large.png'
    Image.effect_noise((1200, 1200), 50).save(large)
    with running_app(options_of(model_files), temporary) as app:
        given = upload(app.address, large)
        computing = threading.Thread(target=lambda: suppressed(app.address, given), daemon=True)
        computing.start()
        time.sleep(3)
        assert computing.is_alive()
        started = time.monotonic()
    assert time.monotonic() - started < 15


def suppressed(address, given):
    with contextlib.suppress(Exception):  # the connection ends with the app
        call(address, 'restore', given)


def watch(pid, memory, ended):
    while not ended.wait(1):
        memory.append(memory_of(pid))
