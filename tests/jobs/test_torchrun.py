"""Processes of one torchrun end together; those of another machine do not matter."""

import subprocess
import sys
import tempfile
import threading

import pytest

from rass_mm.errors import ConfigError
from rass_mm.jobs import torchrun
from rass_mm.jobs.torchrun import ended_together


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Folder of temporary files."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setattr(torchrun, 'INTERVAL', 0.02)
    return tmp_path


def variables(number, node=0, restart=0, count=3):
    """The variables of a process of torchrun on one of two machines; nothing listens at the address of the store."""
    return {
        **{'TORCHELASTIC_USE_AGENT_STORE': 'True', 'TORCHELASTIC_RUN_ID': 'none'},
        **{'TORCHELASTIC_RESTART_COUNT': str(restart), 'GROUP_RANK': str(node), 'MASTER_ADDR': '127.0.0.1'},
        **{'MASTER_PORT': '1', 'LOCAL_RANK': str(number), 'LOCAL_WORLD_SIZE': str(count)},
        **{'RANK': str(node * count + number), 'WORLD_SIZE': str(2 * count)},
    }


class Process:
    """A process, as a thread. It ends with an error, or without one."""

    def __init__(self, number, error=None, **options):
        self.environment, self.error, self.ended = variables(number, **options), error, []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            with ended_together(self.environment):
                if self.error is not None:
                    raise self.error
        except BaseException as found:
            self.ended.append(found)

    def waits(self):
        self.thread.join(0.3)
        return self.thread.is_alive()

    def ends(self):
        self.thread.join(20)
        return not self.thread.is_alive() and self.ended == [self.error] * (self.error is not None)


def test_a_failure_waits_for_the_end_of_the_others_on_its_machine_only(folder):
    failed = [Process(0, ConfigError('a')), Process(1, RuntimeError('b'))]
    other_machine = Process(2, node=1)
    earlier = Process(2, restart=1)
    assert all(process.waits() for process in failed)
    assert other_machine.ends() and earlier.ends()
    assert all(process.waits() for process in failed)
    assert Process(2).ends() and all(process.ends() for process in failed)
    assert len(list(folder.iterdir())) == 2  # those of the other machine and the other attempt


@pytest.mark.parametrize('error', [ValueError('a'), SystemExit(3), KeyboardInterrupt()])
def test_any_end_of_another_process_ends_the_wait(error, folder):
    failed = Process(0, ConfigError('a'), count=2)
    assert failed.waits()
    assert Process(1, error, count=2).ends() and failed.ends()
    assert not list(folder.iterdir())


def test_an_interrupted_process_does_not_wait():
    assert Process(0, KeyboardInterrupt()).ends()


def test_a_process_that_is_gone_is_not_waited_for(folder):
    failed = Process(0, ConfigError('a'), count=2)
    assert failed.waits()
    gone = subprocess.Popen([sys.executable, '-S', '-c', ''])
    gone.wait()
    next(folder.iterdir()).joinpath('1').write_text(str(gone.pid))
    assert failed.ends()


def test_a_folder_that_cannot_be_written_does_not_stop_the_process(folder, monkeypatch):
    (folder / 'file').touch()
    monkeypatch.setattr(tempfile, 'tempdir', str(folder / 'file'))
    assert Process(0, ConfigError('a')).ends()


@pytest.mark.parametrize('missing', ['TORCHELASTIC_RUN_ID', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE'])
def test_a_process_without_torchrun_does_not_wait(missing, folder):
    environment = {name: value for name, value in variables(0).items() if name != missing}
    with pytest.raises(ConfigError), ended_together(environment):
        raise ConfigError('a')
    assert not list(folder.iterdir())
