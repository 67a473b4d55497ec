"""The doctor in environments with the original OpenMMLab packages, with their forks, and with both."""

import importlib.metadata

import pytest

from rass_mm.versions import recorded_versions
from rass_mm_cli import doctor, families, packages

REAL = importlib.metadata.version
FORKED = {fork: version for fork, version in families.FORKS.values()}
ORIGINALS = {name: packages.PROVED[name] for name in families.FORKS}


@pytest.fixture
def installed(monkeypatch):
    """Replaces the installed OpenMMLab packages by those of a dict, name -> version."""

    def install(versions):
        def version(name):
            if name in versions:
                return versions[name]
            if name in families.FORKS or name in FORKED or name == 'mmagic':
                raise importlib.metadata.PackageNotFoundError(name)
            return REAL(name)

        monkeypatch.setattr(importlib.metadata, 'version', version)

    return install


def rows():
    lines, remedies = doctor.report()
    return {line[:24].strip(): line[24:].split() for line in lines[1:]}, remedies


def test_forks_are_rows_of_their_own_and_complete(installed):
    installed(FORKED)
    table, remedies = rows()
    for fork, version in FORKED.items():
        assert table[fork] == [version, version, 'ok']
    assert not table.keys() & ORIGINALS.keys() and remedies == []
    assert ' '.join(table['mmagic']) == '- 1.2.0 absent (has no fork)'


def test_a_missing_fork_is_installed_without_its_dependencies(installed):
    installed({name: version for name, version in FORKED.items() if name != 'onedl-mmdetection'})
    remedies = rows()[1]
    assert remedies == ['onedl-mmdetection is absent: pip install --no-deps onedl-mmdetection==3.5.1']


def test_originals_beside_forks_are_a_fault_with_a_command_that_leaves_one_family(installed):
    installed({**ORIGINALS, **FORKED})
    table, remedies = rows()
    assert ' '.join(table['mmengine'][2:]) == 'installed beside onedl-mmengine'
    assert len(remedies) == len(ORIGINALS)
    removed = {part for remedy in remedies for part in remedy.split('uninstall -y ')[1].split(' &&')[0].split()}
    assert removed == {*FORKED, 'mmcv'}  # mmcv is compiled again, the others are reinstalled over the leftovers
    assert all(f'{name}=={version}' in ' '.join(remedies) for name, version in ORIGINALS.items())


def test_records_name_the_family(installed):
    installed(FORKED)
    assert recorded_versions()['onedl-mmcv'] == FORKED['onedl-mmcv']
    assert 'mmcv' not in recorded_versions()


def test_restoration_is_not_installed_over_the_forks(installed):
    installed(FORKED)
    message = doctor.explain_restoration(ModuleNotFoundError("No module named 'mmagic'"))
    assert 'another environment' in message and 'To fix:' not in message
