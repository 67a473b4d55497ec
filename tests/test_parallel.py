"""Jobs in processes: their results, their errors, a killed worker, progress."""

import logging
import os
import sys

import pytest

from rass_mm import parallel
from rass_mm.errors import ConfigError, DataError, RassError


@pytest.fixture
def quick(monkeypatch):
    """Workers that need not import this package."""
    monkeypatch.setattr(parallel, '_start_worker', os.getpid)


@pytest.mark.parametrize('workers', [1, 2])
def test_every_job_is_done_once(quick, workers):
    assert sorted(parallel.run_jobs(abs, [-3, 1, -2], workers)) == [1, 2, 3]
    assert list(parallel.run_jobs(abs, [], workers)) == []


@pytest.mark.parametrize('workers', [1, 2])
def test_an_error_of_a_job_arrives(quick, workers):
    with pytest.raises(ValueError, match='invalid literal'):
        list(parallel.run_jobs(int, ['1', 'x'], workers))


def test_a_killed_worker_is_an_error_and_no_endless_wait(quick):
    with pytest.raises(DataError, match='fewer workers'):
        list(parallel.run_jobs(os._exit, [9, 9], 2))


def test_no_workers_are_refused():
    with pytest.raises(ConfigError, match='is 0'):
        list(parallel.run_jobs(abs, [1], 0))


def test_progress_is_logged_by_tenths_where_there_is_no_terminal(caplog):
    caplog.set_level(logging.INFO)
    assert list(parallel.watched(iter(range(40)), 40, 'reading')) == list(range(40))
    assert [record.message for record in caplog.records] == [f'reading: {done} of 40' for done in range(4, 41, 4)]


def test_failed_command_shows_the_end_of_its_log(tmp_path):
    log = tmp_path / 'logs' / 'x.log'
    shown = 'import os; print(os.environ["OMP_NUM_THREADS"], os.environ["OWN"])'
    parallel.run_logged([sys.executable, '-c', shown], log, 'first', {'OWN': 'own'})
    assert log.read_text() == '1 own\n'
    lines = 'print(*range(100), sep="\\n"); raise SystemExit(3)'
    with pytest.raises(RassError) as caught:
        parallel.run_logged([sys.executable, '-c', lines], log, 'Step two')
    message = str(caught.value)
    assert message.startswith(f'Step two failed with exit status 3. Last lines of {log}:\n75\n')
    assert message.endswith('\n99')
    assert log.read_text().startswith('1 own\n0\n')
