"""Errors of launchers: a missing environment, a resumed run with initial weights, a lost process."""

import pytest
import torch
from mmengine.config import Config

from rass_mm.config.processes import NUMBERS
from rass_mm.config.settings import check_settings
from rass_mm.engine.launchers import NEEDED, check_launcher, connected, join_cpu_processes
from rass_mm.errors import ConfigError, ConnectionLostError
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


@pytest.mark.parametrize('value', ['300s', 0, -1, float('inf'), True])
@pytest.mark.parametrize('launched', [True, False])
def test_a_wrong_timeout_is_named(unlaunched, monkeypatch, value, launched):
    content = {'model': {}, 'train_dataloader': {}, 'train_cfg': {}, 'optim_wrapper': {}}
    config = Config({**content, 'env_cfg': {'dist_cfg': {'timeout': value}}})
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda *_, **__: pytest.fail('connected'))
    with pytest.raises(ConfigError, match=f'env_cfg.dist_cfg.timeout is {value!r}, but it should be'):
        join_cpu_processes(config) if launched else check_settings(config, 'train')


@pytest.mark.parametrize('resume', [['--resume'], []])
def test_resuming_with_initial_weights_is_an_error(tmp_path, capsys, resume):
    (tmp_path / 'other.pth').write_bytes(b'')
    options = [f'load_from={tmp_path / "other.pth"}', *([] if resume else ['resume=True'])]
    assert main(['train', CONFIG, '--work-dir', str(tmp_path / 'work'), *resume, '--cfg-options', *options]) == 1
    message = capsys.readouterr().err
    assert f'load_from is {tmp_path}/other.pth' in message and '--cfg-options load_from=None' in message
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:19287'),
        RuntimeError('Timed out waiting 15000ms for recv operation to complete'),
        torch.distributed.DistBackendError('NCCL error'),
        torch.distributed.DistStoreError('1/2 clients joined'),
    ],
)
def test_a_lost_process_is_named_in_a_distributed_job_only(monkeypatch, error):
    for name in NUMBERS.values():
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(type(error)), connected():
        raise error
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(ConnectionLostError, match='Another process of this training.*--resume'), connected(begun=True):
        raise error
    with pytest.raises(ConnectionLostError, match='on all machines again[.]'), connected():  # nothing to resume from
        raise error


def test_the_reason_at_the_end_of_a_long_message_is_kept(monkeypatch):
    monkeypatch.setenv('RANK', '1')
    text = f'NCCL error in: ProcessGroupNCCL.cpp:{"9" * 400} Last error: Duplicate GPU detected : rank 1 and rank 0'
    with pytest.raises(ConnectionLostError, match='cannot be reached.*Duplicate GPU detected'), connected():
        raise torch.distributed.DistBackendError(text)


@pytest.mark.parametrize('said', ['error: EADDRINUSE, address in use', 'bind: Address already in use'])
def test_a_port_in_use_is_named(monkeypatch, said):
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(ConnectionLostError, match='Set PORT to a free port') as caught, connected(begun=True):
        raise torch.distributed.DistNetworkError(f'The server socket has failed to listen on 29500, {said}')
    assert 'Another process' not in str(caught.value)


def test_other_errors_of_a_distributed_job_are_not_changed(monkeypatch):
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(RuntimeError, match='shape'), connected():
        raise RuntimeError('shape mismatch')
    with pytest.raises(RuntimeError, match='DataLoader timed out'), connected():
        raise RuntimeError('DataLoader timed out after 5 seconds')
