"""Runs real commands as a user would."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / 'shared'


def run(*command, cwd=ROOT, env=None, timeout=600):
    """Runs a command as a user would, one thread per process; returns the finished process with its output as text."""
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': str(ROOT),
        'PYTHONWARNINGS': 'ignore',
        **(env or {}),
    }
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, timeout=timeout, text=True, capture_output=True
    )


def python(*arguments, **kwargs):
    """`run` with this interpreter."""
    return run(sys.executable, *arguments, **kwargs)
