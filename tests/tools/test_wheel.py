"""Contents of the wheel: the package, its configs and its base, and nothing else."""

import zipfile
from pathlib import PurePosixPath

from commands import ROOT

KINDS = {'.py', '.json', '.safetensors', '.txt', '.typed', '.md', '.yml', ''}
MODULES = ('rass_mm', 'rass_mm_cli')
MOST_BYTES = 20 * 2**20


def files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return {PurePosixPath(name): archive.getinfo(name).file_size for name in archive.namelist()}


def test_the_wheel_has_every_module_and_config_of_the_checkout(wheel):
    found = files(wheel)
    modules = {path.relative_to(ROOT).as_posix() for name in MODULES for path in (ROOT / name).rglob('*.py')}
    configs = {f'rass_mm/{path.relative_to(ROOT).as_posix()}' for path in (ROOT / 'configs').rglob('*.py')}
    assert len(modules) > 100 and len(configs) > 20
    assert {str(path) for path in found if path.suffix == '.py'} == modules | configs


def test_the_wheel_has_nothing_but_the_package(wheel):
    found = files(wheel)
    assert {path.parts[0] for path in found if not path.parts[0].endswith('.dist-info')} == set(MODULES)
    package = {path for path in found if path.parts[0] in MODULES}
    assert {path.suffix for path in package} <= KINDS, sorted(path for path in package if path.suffix not in KINDS)
    assert not [path for path in found if path.is_absolute() or '..' in path.parts or '__pycache__' in path.parts]
    assert any(path.name == 'LICENSE' for path in found) and PurePosixPath('rass_mm/py.typed') in found


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < MOST_BYTES
