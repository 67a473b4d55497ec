"""Processes of torchrun end together."""

import threading

import pytest
from torch.distributed import TCPStore

from rass_mm.errors import ConfigError, RassError
from rass_mm.jobs.torchrun import ended_together


@pytest.fixture
def environment():
    """The variables of a process of torchrun, whose store is in this process."""
    store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    yield {
        **{'TORCHELASTIC_USE_AGENT_STORE': 'True', 'TORCHELASTIC_RESTART_COUNT': '0', 'WORLD_SIZE': '3'},
        **{'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(store.port)},
    }


def process(environment, error=None):
    """Starts a process, as a thread that records the error it ends with; returns both."""
    ended = []

    def run():
        try:
            with ended_together(environment):
                if error is not None:
                    raise error
        except RassError as found:
            ended.append(found)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ended


def test_a_failure_waits_for_the_end_of_the_others(environment):
    failed = [process(environment, ConfigError(name)) for name in 'ab']
    for thread, _ in failed:
        thread.join(1)
        assert thread.is_alive()
    whole, _ = process(environment)
    for thread in (whole, *(thread for thread, _ in failed)):
        thread.join(20)
        assert not thread.is_alive()
    assert [str(ended[0]) for _, ended in failed] == ['a', 'b']


def test_a_process_without_torchrun_does_not_wait():
    thread, ended = process({'WORLD_SIZE': '2', 'RANK': '0'}, ConfigError('a'))
    thread.join(20)
    assert not thread.is_alive() and len(ended) == 1
