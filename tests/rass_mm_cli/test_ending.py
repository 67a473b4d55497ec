"""How a command ends: after Ctrl-C, and when the process that started it ends."""

import contextlib
import functools
import importlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import current_process, forkserver, get_context
from multiprocessing.connection import Client
from multiprocessing.resource_sharer import DupFd, stop

import pytest

from rass_mm.errors import DataError
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


@pytest.fixture
def command(monkeypatch):
    """Function that makes a function run instead of the command `configs`, and returns its exit status."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it

    def run(function):
        module = importlib.import_module('rass_mm.cli.configs')
        monkeypatch.setattr(module, 'add_arguments', lambda parser: parser.set_defaults(run=function, interrupted='A.'))
        return main.main(['configs'])

    yield run
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('error', [ValueError('a'), DataError('a'), OSError(2, 'a', 'b'), SystemError('a')])
def test_an_error_that_an_interruption_becomes_is_an_interruption(error, command, capsys):
    def interrupted(arguments):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise error from None

    before = signal.getsignal(signal.SIGINT)
    assert command(interrupted) == 130
    assert capsys.readouterr().err == '\nInterrupted. A.\n'
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_without_an_interruption_stays_one(command, capsys):
    def failing(arguments):
        raise DataError('the fault')

    assert command(failing) == 1
    assert capsys.readouterr().err == '\nerror: the fault\n'


def test_a_handler_of_the_caller_is_called_and_kept(command):
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    own = signal.getsignal(signal.SIGINT)
    try:
        assert command(lambda _: os.kill(os.getpid(), signal.SIGINT) or 0) == 0
        assert calls == [1] and signal.getsignal(signal.SIGINT) is own
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert command(lambda _: os.kill(os.getpid(), signal.SIGINT) or 0) == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_command_runs_outside_the_main_thread(command):
    with ThreadPoolExecutor() as threads:
        assert threads.submit(command, lambda _: 0).result() == 0


def test_no_fork_server_is_left(command):
    found = []

    def starts(arguments):
        process = get_context('forkserver').Process(target=int)
        process.start()
        process.join()
        found.append(forkserver._forkserver._forkserver_pid)
        return process.exitcode

    assert command(starts) == command(starts) == 0
    assert len(set(found)) == 2
    assert [parent_of(process) for process in found] == [None, None]


def test_the_end_of_the_main_process_is_no_traceback_of_a_data_worker(command, capfd):
    def leaves(arguments):
        address, _ = DupFd(1)._id
        with Client(address, authkey=current_process().authkey):
            pass  # the process that was to receive the file has ended
        time.sleep(0.3)
        stop()
        return 0

    assert command(leaves) == 0
    assert 'Traceback' not in capfd.readouterr().err


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
