"""`rass-mm doctor` on installations with other versions, and its report on bases."""

import re

import pytest
from commands import ROOT, python

from rass_mm_cli import bases, doctor, packages

REAL = packages.installed_version


@pytest.fixture
def torch_is(monkeypatch):
    def fake(version):
        monkeypatch.setattr(packages, 'installed_version', lambda name: version if name == 'torch' else REAL(name))

    return fake


@pytest.mark.parametrize('version', ['2.4.1', '2.5.1+cu121', '2.9.1', '2.9.1+cu128', '1.13', '2.1.0a0+git12'])
def test_torch_below_the_floor_is_a_problem_with_advisory_and_command(torch_is, version):
    torch_is(version)
    lines, remedies = doctor.report()
    row = next(line for line in lines if line.startswith('torch '))
    assert version in row and row.endswith('unsafe version')
    assert len(remedies) == 1
    assert f'torch {version} is below 2.10' in remedies[0]
    assert 'CVE-2026-24747' in remedies[0] and 'CVE-2025-32434' in remedies[0]
    # mmcv is compiled for a specific torch version, so the command ends with its compilation.
    assert re.search(
        r': pip install torch==2\.11\.0 torchvision==0\.26\.0 && .*MMCV_WITH_OPS=1 .*mmcv==2\.1\.0$', remedies[0]
    )


@pytest.mark.parametrize(
    ('version', 'verdict'), [('2.10.0', 'untested version'), ('2.11.0+cpu', 'ok'), ('3.0', 'untested version')]
)
def test_torch_at_or_above_the_floor_is_not(torch_is, version, verdict):
    torch_is(version)
    lines, remedies = doctor.report()
    assert next(line for line in lines if line.startswith('torch ')).endswith(verdict) and remedies == []


def test_rows_that_fail_for_the_same_reason_name_the_package_at_fault(torch_is, monkeypatch):
    torch_is(None)
    failed = {name: "ModuleNotFoundError: No module named 'torch'" for name in packages.NEEDS} | {'torch': 'absent'}
    monkeypatch.setattr(packages, 'failures', lambda: failed)
    lines, remedies = doctor.report(imports=True)
    verdicts = {name: next(line for line in lines if line.startswith(f'{name} ')) for name in failed}
    assert verdicts.pop('torch').endswith('absent')
    assert all(line.endswith('needs torch') for line in verdicts.values()), verdicts
    assert remedies == ['torch is absent: pip install torch==2.11.0']


def test_the_command_fails_on_an_unsafe_torch_and_names_the_download_of_the_base(tmp_path):
    """Puts metadata of an older torch before the real one, as after `pip install torch==2.9.1`."""
    (tmp_path / 'torch-2.9.1.dist-info').mkdir()
    (tmp_path / 'torch-2.9.1.dist-info' / 'METADATA').write_text('Metadata-Version: 2.1\nName: torch\nVersion: 2.9.1\n')
    done = python('-m', 'rass_mm_cli', 'doctor', cwd=tmp_path, env={'PYTHONPATH': f'{tmp_path}:{ROOT}'})
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r'To fix:\n  torch 2\.9\.1 is below 2\.10: .*CVE-2026-24747', done.stdout)
    command = bases.SD21_BASE.command().splitlines()
    printed = [line.strip() for line in done.stdout.splitlines()]
    start = printed.index(command[0])
    assert printed[start : start + len(command)] == [line.strip() for line in command]


def test_setup_requires_the_release_that_the_doctor_checks():
    asked = re.search(r"'torch>=([\d.]+)'", (ROOT / 'setup.py').read_text())[1]
    assert tuple(map(int, asked.split('.'))) == packages.FLOORS['torch'][0]


def test_bases_are_found_here_and_in_the_variable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 'hf download' in '\n'.join(doctor.base_lines())
    folder = tmp_path / 'shelf' / bases.SD21_BASE.folder
    (folder / 'unet').mkdir(parents=True)
    (folder / 'unet' / 'config.json').write_text('{}')
    monkeypatch.setenv('RASS_MM_BASES', str(tmp_path / 'shelf'))
    lines = doctor.base_lines()
    assert lines[1].split() == ['Stable', 'Diffusion', '2.1-base', str(folder)]
    assert 'hf download' not in '\n'.join(lines)
