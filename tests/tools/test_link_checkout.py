"""The command `rass-mm` that tools/setup_env.sh installs in an environment."""

import subprocess
import sys
import sysconfig

import cv2
import numpy as np
import pytest
from commands import ROOT, run

UNGUARDED = 'import sys\n\nfrom rass_mm_cli.main import main\n\nsys.exit(main())\n'


@pytest.fixture
def environment(tmp_path):
    """Environment with the packages of this one and with the script of earlier versions."""
    folder = tmp_path / 'env'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    script = folder / 'bin' / 'rass-mm'
    script.write_text(f'#!{folder}/bin/python\n{UNGUARDED}')
    script.chmod(0o755)
    site = next(folder.glob('lib/python*/site-packages'))
    (site / 'rass_mm_checkout.pth').write_text(f'{ROOT}\n')
    return folder


def test_installed_command_runs_with_worker_processes_and_replaces_an_old_script(environment, tmp_path):
    linked = run(ROOT / 'tools' / 'link_checkout.sh', environment)
    assert linked.returncode == 0, linked.stderr
    assert sorted(file.name for file in (environment / 'bin').glob('*rass-mm*')) == ['rass-mm']
    (tmp_path / 'images').mkdir()
    for name in 'abc':
        cv2.imwrite(str(tmp_path / 'images' / f'{name}.png'), np.full((32, 32, 3), 90, np.uint8))
    done = run(
        *(environment / 'bin' / 'rass-mm', 'make-lq', 'images', 'lq', '--workers', '2'),
        cwd=tmp_path,
        # Packages without the checkout, which must be found through the link.
        env={'PYTHONPATH': sysconfig.get_paths()['purelib']},
    )
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / 'lq').glob('*.png')) == ['a.png', 'b.png', 'c.png']


def test_environment_imports_the_checkout_that_was_linked(environment):
    site = next(environment.glob('lib/python*/site-packages'))
    (site / 'rass_mm_checkout.pth').write_text('/another/checkout\n')
    assert run(ROOT / 'tools' / 'link_checkout.sh', environment).returncode == 0
    code = 'import importlib.util; print(importlib.util.find_spec("rass_mm").origin)'
    found = run(environment / 'bin' / 'python', '-c', code, cwd='/', env={'PYTHONPATH': ''})
    assert found.stdout.strip() == str(ROOT / 'rass_mm' / '__init__.py'), found.stderr
