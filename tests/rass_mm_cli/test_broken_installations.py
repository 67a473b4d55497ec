"""Messages of commands and imports in real environments in which one library is absent, emptied or failing.

Each environment is a virtual environment with links to the packages of this one, except for the library that is missing
or broken.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, run

from rass_mm_cli import packages

SITE = Path(importlib.util.find_spec('torch').origin).parent.parent
LIBRARIES = {'torch': 'torch', 'mmcv': 'mmcv', 'mmsegmentation': 'mmseg', 'diffusers': 'diffusers'}
"""Distribution -> folder."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def empty(tmp_path_factory):
    folder = tmp_path_factory.mktemp('broken') / 'env'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    return folder


def filled(environment, name, fault):
    """Links all packages into the environment except one, which is 'absent', 'emptied' or 'failing'."""
    site = next(environment.glob('lib/python*/site-packages'))
    for entry in site.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    folder = LIBRARIES[name]
    for entry in SITE.iterdir():
        own = entry.name == folder or re.fullmatch(rf'{name}-[^-]+\.dist-info', entry.name)
        if entry.name != '__pycache__' and not entry.name.endswith('.pth') and not own:
            (site / entry.name).symlink_to(entry)
    if fault != 'absent':
        info = next(SITE.glob(f'{name}-*.dist-info'))
        (site / info.name).symlink_to(info)
    if fault == 'failing':
        (site / folder).mkdir()
        (site / folder / '__init__.py').write_text("raise OSError('libbroken.so.1: cannot open shared object file')\n")
    return environment / 'bin' / 'python'


@pytest.mark.parametrize('name', LIBRARIES)
@pytest.mark.parametrize('fault', ['absent', 'emptied', 'failing'])
def test_help_and_doctor_answer_and_the_row_at_fault_is_named(empty, name, fault, tmp_path):
    interpreter = filled(empty, name, fault)

    def rass_mm(*arguments):
        return run(interpreter, '-m', 'rass_mm_cli', *arguments, cwd=tmp_path)

    for option in ('--help', '--version'):
        assert rass_mm(option).returncode == 0
    done = rass_mm('doctor', *(['--imports'] if fault == 'failing' else []))
    assert_at_fault(done.stdout, name, fault)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    done = rass_mm('train', 'rass/rass_scenes_tiny.py')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert_at_fault(done.stderr, name, fault)
    done = run(interpreter, '-c', 'import rass_mm', cwd=tmp_path)
    assert 'InstallationError: rass_mm cannot be imported' in done.stderr
    assert_at_fault(done.stderr, name, fault)


def assert_at_fault(text, name, fault):
    """Checks that only the row of the library has a fault and that one command fixes it."""
    verdict = {'absent': 'absent', 'emptied': 'files missing', 'failing': 'fails: OSError: libbroken'}[fault]
    lines = [line for line in text.splitlines() if not line.startswith(packages.OPERATORS)]
    rows = [line for line in lines if line.split(' ')[0] in packages.PROVED and '==' not in line and ' is ' not in line]
    assert len(rows) == len(packages.PROVED), text
    row = next(line for line in rows if line.startswith(f'{name} '))
    assert verdict in row, row
    for other in rows:
        if other != row:
            assert re.search(rf'(ok|untested version|needs {name})$', other), other
    (operators,) = (line for line in text.splitlines() if re.match(rf'{packages.OPERATORS} +(compiled|missing) ', line))
    assert re.search(rf'(ok|needs {name})$', operators), operators
    remedies = text[text.index('To fix:') :].strip().splitlines()[1:]
    assert len(remedies) == 1 and remedies[0].strip().startswith(f'{name} '), remedies
    assert re.search(rf'pip .*{name}==', remedies[0])


def test_the_same_environment_without_a_fault_is_healthy(empty, tmp_path):
    site = next(empty.glob('lib/python*/site-packages'))
    filled(empty, 'torch', 'absent')
    for entry in (SITE / 'torch', next(SITE.glob('torch-*.dist-info'))):
        (site / entry.name).symlink_to(entry)
    done = run(empty / 'bin' / 'python', '-m', 'rass_mm_cli', 'doctor', '--imports', cwd=tmp_path)
    assert done.returncode == 0 and 'Nothing to fix' in done.stdout, done.stdout
    assert ROOT.exists()
