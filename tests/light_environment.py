"""Environments that have only some of the installed packages, made of links in a second."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from commands import ROOT, run
from release.locks import closure


def light_environment(folder, more=()):
    """Creates an environment with what a light installation has and `more`, with this checkout. Returns its Python."""
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    (site,) = folder.glob('lib/python*/site-packages')
    for name in closure(['rass_mm', *more]):
        found = importlib.metadata.distribution(name)
        for first in {file.parts[0] for file in found.files} - {'..', '__pycache__'}:
            if not (site / first).exists():
                (site / first).symlink_to(Path(found.locate_file(first)).absolute())
    return folder / 'bin' / 'python'


def light(python, *arguments, cwd=ROOT, env=None):
    """Runs `rass-mm` in such an environment."""
    return run(python, '-m', 'rass_mm_cli', *arguments, cwd=cwd, env=env)
