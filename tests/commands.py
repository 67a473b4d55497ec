"""Runs real commands as a user would."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / 'shared'


def run(*command, cwd=ROOT, env=None, timeout=600, **kwargs):
    """Runs a command as a user would, one thread per process; returns the finished process with its output as text."""
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': str(ROOT),
        'PYTHONWARNINGS': 'ignore',
        **(env or {}),
    }
    return subprocess.run(
        [str(part) for part in command],
        **dict(cwd=cwd, env=environment, timeout=timeout, text=True, capture_output=True, **kwargs),
    )


def python(*arguments, **kwargs):
    """`run` with this interpreter."""
    return run(sys.executable, *arguments, **kwargs)


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
