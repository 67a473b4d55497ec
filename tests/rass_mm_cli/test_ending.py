"""How a command ends: after Ctrl-C, and when the process that started it ends."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time

import pytest

from rass_mm.parallel import run_logged
from rass_mm_cli import main

COMMAND = [sys.executable, '-m', 'rass_mm_cli', 'make-scenes', 'out', '--workers', '1', '--val', '0', '--train']
STARTER = """
import sys
from pathlib import Path
from rass_mm.parallel import run_logged
run_logged(sys.argv[1:], Path('log'), 'the command')
"""


@pytest.fixture
def started():
    """Function that starts a process, which is killed at the end of the test."""
    processes = []

    def start(command, **options):
        # A shell in the background lets its children ignore Ctrl-C.
        attentive = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        processes.append(subprocess.Popen(command, start_new_session=True, preexec_fn=attentive, **options))
        return processes[-1]

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def begun(folder):
    """Waits until the first files are written."""
    for _ in range(1800):
        if len(list(folder.rglob('*.png'))) > 2:
            return True
        time.sleep(0.1)
    return False


def test_ctrl_c_is_a_sentence_and_its_own_status(started, tmp_path):
    process = started([*COMMAND, '100000'], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert begun(tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    text = process.stderr.read()
    assert text.strip().endswith('Interrupted. Run the same command again to continue.') and 'Traceback' not in text


@pytest.mark.parametrize('moment', ['imports', 'options'])
def test_ctrl_c_before_the_command_begins(moment, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    target = {'imports': 'importlib.import_module', 'options': 'CommandParser.parse_args'}[moment]
    monkeypatch.setattr(f'rass_mm_cli.main.{target}', interrupt)
    assert main.main(['make-scenes', 'out']) == 130
    assert capsys.readouterr().err == '\nInterrupted.\n'


@pytest.mark.parametrize('number', [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_step_ends_with_the_process_that_started_it(number, started, tmp_path):
    starter = started([sys.executable, '-c', STARTER, *COMMAND, '100000'], cwd=tmp_path)
    assert begun(tmp_path)
    child = next(int(entry) for entry in os.listdir('/proc') if entry.isdigit() and parent_of(entry) == starter.pid)
    starter.send_signal(number)
    starter.wait(60)
    for _ in range(100):
        if parent_of(child) is None:
            return
        time.sleep(0.1)
    raise AssertionError('the step is still running')


def parent_of(process):
    """Returns the id of the parent of a running process, or None."""
    try:
        with open(f'/proc/{process}/stat') as file:
            fields = file.read().rpartition(')')[2].split()
    except OSError:
        return None
    return None if fields[0] == 'Z' else int(fields[1])


def test_the_variable_of_the_parent_is_not_passed_on(tmp_path):
    code = "import os; from rass_mm_cli.main import main; main(['configs']); assert 'RASS_MM_PARENT' not in os.environ"
    run_logged([sys.executable, '-c', code], tmp_path / 'log', 'configs')
