"""Runs real commands as a user would."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import warm as forks

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / 'shared'


def environment_of(env=None):
    """The environment of a command: one thread, no warnings, this checkout; `env` has further variables."""
    return {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': str(ROOT),
        'PYTHONWARNINGS': 'ignore',
        **(env or {}),
    }


def run(*command, cwd=ROOT, env=None, timeout=600, **kwargs):
    """Runs a command as a user would, one thread per process; returns the finished process with its output as text."""
    environment = environment_of(env)
    return subprocess.run(
        [str(part) for part in command],
        **dict(cwd=cwd, env=environment, timeout=timeout, text=True, capture_output=True, **kwargs),
    )


def python(*arguments, **kwargs):
    """`run` with this interpreter."""
    return run(sys.executable, *arguments, **kwargs)


@functools.cache
def server():
    """Starts the process that runs scripts in forks of itself; returns the path of its socket."""
    address = Path(tempfile.mkdtemp(prefix='warm-')) / 'socket'
    command = [sys.executable, '-W', 'ignore', str(Path(forks.__file__)), '--serve', str(address)]
    environment = environment_of({'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests"}'})
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    atexit.register(shutil.rmtree, address.parent)
    atexit.register(process.stdin.close)
    shim = address.with_name('python')
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {forks.__file__} {address} "$@"\n')
    shim.chmod(0o755)
    assert process.stdout.readline() == forks.READY
    return address


def warm(*arguments, cwd=ROOT, env=None, timeout=600):
    """`python` in a fork of a process that has imported the package already: for scripts whose start is not the point.

    What takes most of a short command's time is the start of its process. Scripts that the script starts with
    `sys.executable` run in such forks too.
    """
    shim = server().with_name('python')
    env = {'WARM_EXECUTABLE': str(shim), **(env or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull) as nothing:
        outputs = [file.fileno() for file in (nothing, out, err)]
        with forks.ask(server(), arguments, cwd, environment_of(env), outputs) as connection:
            connection.settimeout(timeout)
            status = forks.answer(connection)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess([str(part) for part in arguments], status, *texts)


TOOLS = """
import runpy, sys
for line in sys.stdin.read().splitlines():
    sys.argv = line.split('\\t')
    try:
        runpy.run_path(sys.argv[0], run_name='__main__')
    except SystemExit as end:
        if end.code:
            raise
"""


def tools(*commands, **kwargs):
    """Runs several scripts, each with its arguments, one after the other in one process up to the first that fails.

    What takes most of a short command's time is the start of its process.
    """
    given = '\n'.join('\t'.join(str(part) for part in command) for command in commands)
    return run(sys.executable, '-c', TOOLS, input=given, **kwargs)
