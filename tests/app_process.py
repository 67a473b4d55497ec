"""The app as a process of its own, started by its command."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

from commands import ROOT, environment_of


def options_of(files):
    """The options of the command for some `ModelFiles`."""
    found = {'--adapter': files.adapter, '--base': files.base, '--checkpoint': files.checkpoint}
    found['--baseline'] = files.baseline
    return [str(part) for option, value in found.items() if value for part in (option, value)]


@contextmanager
def running_app(options, temporary):
    """Starts `rass-mm app` on a free port. Yields its address, process id and log. It must end in order.

    Args:
        options: further options.
        temporary: folder for temporary files, which must be empty at the end.
    """
    command = [sys.executable, '-W', 'ignore', '-m', 'rass_mm', 'app', '--port', '0', *map(str, options)]
    environment = environment_of({'TMPDIR': str(temporary)})
    log = temporary.with_name('app.log')
    with log.open('w') as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
        )
    try:
        line = process.stdout.readline()
        found = re.match(r'The page is at (http://127\.0\.0\.1:\d+/) ', line)
        assert found, line + log.read_text()
        yield SimpleNamespace(address=found[1], pid=process.pid, log=log)
        os.kill(process.pid, signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0 and 'removed' in rest, rest + log.read_text()
    finally:
        process.kill()
        process.wait()
    assert not list(temporary.glob('rass-mm-app-*'))


def memory_of(pid):
    """Resident memory of a process in MB."""
    with open(f'/proc/{pid}/status') as file:
        return next(int(line.split()[1]) / 1000 for line in file if line.startswith('VmRSS'))
