"""Bare environments: no compiler, no other packages, and no programs but those of the environment."""

import os
import subprocess
from pathlib import Path

from release.steps import call

KEPT = ('HOME', 'LANG', 'SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'TMPDIR')
"""Variables that a bare environment keeps, with those of pip and of proxies."""


def variables(environment):
    """Returns the variables of commands in an environment: its own programs only, and compilers that fail."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT or name.startswith(('PIP_', 'UV_')) or name.lower().endswith('_proxy')
    }
    if 'PIP_FIND_LINKS' in kept:  # uv does not read pip's settings
        kept.setdefault('UV_FIND_LINKS', kept['PIP_FIND_LINKS'].replace(' ', ','))
    threads = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'MPLBACKEND': 'Agg'}
    compilers = {'CC': 'false', 'CXX': 'false', 'CUDA_HOME': '', 'MMCV_WITH_OPS': '1'}
    return {**kept, **threads, **compilers, 'PATH': str(environment / 'bin'), 'PYTHONNOUSERSITE': '1'}


def site(environment):
    """Returns the folder of the packages of an environment."""
    return next(Path(environment).glob('lib/python*/site-packages'))


def created(folder, python, pip=True):
    """Creates a bare environment and returns its folder."""
    call(python, '-m', 'venv', *([] if pip else ['--without-pip']), folder)
    return folder


def on_top(folder, python):
    """Creates an environment on top of the packages of `python`, without its editable install of the checkout."""
    created(folder, python, pip=False)
    found = call(python, '-c', 'import diffusers; print(diffusers.__file__)').strip().splitlines()[-1]
    packages = Path(found).parent.parent
    (site(folder) / 'tested_packages.pth').write_text(f"import site; site.addsitedir('{packages}')\n")
    return folder


def megabytes(folder):
    """Returns the size of a folder on disk."""
    return round(int(subprocess.check_output(['du', '-sk', folder]).split()[0]) * 1024 / 1e6)


def install(environment, *arguments):
    """Installs with pip in a bare environment."""
    call(environment / 'bin' / 'python', '-m', 'pip', 'install', '-q', *arguments, env=variables(environment))


def rass_mm(environment, *arguments, cwd=None, expected=0):
    """Runs `rass-mm` in an environment and returns its output."""
    return call(environment / 'bin' / 'rass-mm', *arguments, cwd=cwd, env=variables(environment), expected=expected)
