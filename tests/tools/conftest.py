"""Fixtures with the wheel of the package, and the package installed from it."""

import shutil

import pytest
from commands import ROOT, python


@pytest.fixture(scope='session')
def wheel(tmp_path_factory):
    """Wheel of this checkout."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    for name in ('rass_mm', 'rass_mm_cli', 'configs'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    built = python('-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', folder, source)
    assert built.returncode == 0, built.stderr[-3000:]
    return next(folder.glob('rass_mm-*.whl'))


@pytest.fixture(scope='session')
def wheel_site(wheel):
    """Folder for PYTHONPATH that contains only the installed wheel of this checkout."""
    folder = wheel.parent
    installed = python('-m', 'pip', 'install', '-q', '--no-deps', '--target', folder / 'site', wheel)
    assert installed.returncode == 0, installed.stderr[-3000:]
    return folder / 'site'
