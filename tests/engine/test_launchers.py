"""A launcher without its environment, and a resumed run with initial weights, are errors before anything starts."""

import pytest

from rass_mm.engine.launchers import NEEDED, check_launcher
from rass_mm.errors import ConfigError
from rass_mm_cli.main import main

CONFIG = 'baselines/resnet_scenes_tiny.py'


@pytest.fixture
def unlaunched(monkeypatch):
    """The environment of a process that no launcher started."""
    for names in NEEDED.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize('launcher', NEEDED)
def test_missing_variables_are_named_with_the_way_to_start(unlaunched, launcher):
    with pytest.raises(ConfigError) as caught:
        check_launcher(launcher)
    assert all(name in str(caught.value) for name in NEEDED[launcher]) and '--launcher none' in str(caught.value)
    for name in NEEDED[launcher][1:]:
        unlaunched.setenv(name, '1')
    with pytest.raises(ConfigError, match=f'variable {NEEDED[launcher][0]} is not set'):
        check_launcher(launcher)
    unlaunched.setenv(NEEDED[launcher][0], '1')
    check_launcher(launcher)
    check_launcher('none')


@pytest.mark.parametrize('launcher', NEEDED)
def test_the_command_says_it_without_a_traceback(unlaunched, launcher, tmp_path, capsys):
    assert main(['train', CONFIG, '--work-dir', str(tmp_path / 'work'), '--launcher', launcher]) == 1
    assert f'--launcher {launcher}: ' in capsys.readouterr().err and not (tmp_path / 'work').exists()


@pytest.mark.parametrize('resume', [['--resume'], []])
def test_resuming_with_initial_weights_is_an_error(tmp_path, capsys, resume):
    (tmp_path / 'other.pth').write_bytes(b'')
    options = [f'load_from={tmp_path / "other.pth"}', *([] if resume else ['resume=True'])]
    assert main(['train', CONFIG, '--work-dir', str(tmp_path / 'work'), *resume, '--cfg-options', *options]) == 1
    message = capsys.readouterr().err
    assert f'load_from is {tmp_path}/other.pth' in message and '--cfg-options load_from=None' in message
    assert not (tmp_path / 'work').exists()
