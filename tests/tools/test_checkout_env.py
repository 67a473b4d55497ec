"""The environment of a checkout, which has the command `rass-mm` as pip installs it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import ROOT, run

pytestmark = pytest.mark.slow

INSTALLED = dict(PYTHONPATH='')
"""Without the checkout on the path: it must be found by its installation."""


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """A shared environment with the packages of this one, and the leftovers of an earlier version of the set-up."""
    folder = tmp_path_factory.mktemp('shared') / 'env'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    site = next(folder.glob('lib/python*/site-packages'))
    packages = [path for path in sys.path if path.endswith('site-packages') and '.checkout_env' not in path]
    (site / 'packages.pth').write_text(''.join(f'{path}\n' for path in packages))
    (site / 'rass_mm_checkout.pth').write_text('/another/checkout\n')
    (folder / 'bin' / 'rass-mm').write_text('an unguarded script\n')
    (folder / 'bin' / 'which-python').write_text(f'#!{folder}/bin/python\nimport sys\nprint(sys.prefix)\n')
    return folder


@pytest.fixture(scope='module')
def checkouts(shared, tmp_path_factory):
    """Environments of two checkouts that share one environment, by name."""
    environments = {}
    for name in ('one', 'two'):
        root = tmp_path_factory.mktemp('checkouts') / f'checkout {name}'
        (root / 'tools').mkdir(parents=True)
        shutil.copy(ROOT / 'tools' / 'checkout_env.sh', root / 'tools')
        for file in ('setup.py', 'pyproject.toml', 'README.md'):
            shutil.copy(ROOT / file, root)
        for package in ('rass_mm', 'rass_mm_cli', 'configs'):
            shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns('__pycache__'))
        made = run(root / 'tools' / 'checkout_env.sh', shared, env=INSTALLED)
        assert made.returncode == 0, made.stderr
        environments[name] = Path(made.stdout.strip())
    return environments


def test_two_checkouts_work_at_once_on_one_shared_environment(checkouts):
    code = 'import importlib.util; print(importlib.util.find_spec("rass_mm").origin)'
    for environment in checkouts.values():
        found = run(environment / 'bin' / 'python', '-c', code, cwd='/', env=INSTALLED)
        assert found.stdout.strip() == str(environment.parent / 'rass_mm' / '__init__.py'), found.stderr


def test_leftovers_are_removed_and_scripts_run_with_the_environment_of_the_checkout(checkouts, shared):
    assert not (shared / 'bin' / 'rass-mm').exists() and not list(shared.glob('lib/*/*/rass_mm_checkout.pth'))
    done = run(checkouts['one'] / 'bin' / 'which-python', env=INSTALLED)
    assert done.stdout.strip() == str(checkouts['one']), done.stderr


def test_a_second_call_changes_nothing_and_a_changed_setup_installs_again(checkouts, shared):
    environment = checkouts['two']
    script, root = environment / 'bin' / 'rass-mm', environment.parent
    before = script.stat().st_mtime_ns
    assert run(root / 'tools' / 'checkout_env.sh', shared, env=INSTALLED).stdout.strip() == str(environment)
    assert script.stat().st_mtime_ns == before
    (root / 'setup.py').write_text((root / 'setup.py').read_text().replace("'rass-mm=", "'renamed="))
    assert run(root / 'tools' / 'checkout_env.sh', shared, env=INSTALLED).returncode == 0
    assert not script.exists() and (environment / 'bin' / 'renamed').is_file()


def test_the_installed_command_runs_with_worker_processes(checkouts, tmp_path):
    (tmp_path / 'images').mkdir()
    for name in 'abc':
        cv2.imwrite(str(tmp_path / 'images' / f'{name}.png'), np.full((32, 32, 3), 90, np.uint8))
    command = checkouts['one'] / 'bin' / 'rass-mm'
    done = run(command, 'make-lq', 'images', 'lq', '--workers', '2', cwd=tmp_path, env=INSTALLED)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / 'lq').glob('*.png')) == ['a.png', 'b.png', 'c.png']


def test_an_installation_without_extras_replaces_neither_family_of_openmmlab_packages(checkouts):
    """The forks have the import names of the originals: pip would install one over the other."""
    metadata = next(checkouts['one'].glob('lib/*/*/rass_mm-*.dist-info/METADATA')).read_text()
    required = [line.split(': ', 1)[1] for line in metadata.splitlines() if line.startswith('Requires-Dist: ')]
    always = [line for line in required if 'extra ==' not in line]
    assert any(line.startswith('torch>=') for line in always)
    assert not [line for line in always if re.match('(onedl-)?mm', line)]
    families = {
        extra: {re.match(r'[\w-]+', line)[0] for line in required if f'extra == "{extra}"' in line}
        for extra in ('openmmlab', 'onedl', 'restoration')
    }
    assert families['openmmlab'] == {'mmengine', 'mmcv', 'mmsegmentation', 'mmdet'}
    assert families['onedl'] == {'onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation'}
    assert families['restoration'] > families['openmmlab']
