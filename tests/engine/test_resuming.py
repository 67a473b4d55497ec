"""Processes of a training resume from one checkpoint. Real processes are in `tests/tools/test_two_machines.py`."""

from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rass_mm.engine import resuming
from rass_mm.engine.resuming import resume_together
from rass_mm.engine.work_dirs import check_last_checkpoint
from rass_mm.errors import CheckpointError

FROM = torch.frombuffer


@pytest.fixture
def process(tmp_path, monkeypatch):
    """Function that runs `resume_together` in one of two processes, with the other's answer; returns the runner."""

    def run(rank, other, own=None, named=None, resume=True, content=b'weights'):
        work = tmp_path / 'work'
        work.mkdir(exist_ok=True)
        if own is not None:
            (work / 'iter_4.pth').write_bytes(own)
            (work / 'last_checkpoint').write_text(str(work / 'iter_4.pth'))
        monkeypatch.setattr(resuming, 'get_world_size', lambda: 2)
        monkeypatch.setattr(resuming, 'get_rank', lambda: rank)
        monkeypatch.setattr(resuming, 'all_gather_object', lambda mine: [mine, other] if rank == 0 else [other, mine])
        parts = [torch.tensor([len(content)]), *(torch.tensor(list(content[at : at + 3])) for at in (0, 3, 6))]
        sent = (lambda part: None) if rank == 0 else (lambda part: part.copy_(parts.pop(0)))
        monkeypatch.setattr(resuming, 'broadcast', sent)
        monkeypatch.setattr(resuming, 'CHUNK', 3)
        runner = SimpleNamespace(_resume=resume, _load_from=named, work_dir=str(work))
        resume_together(runner)
        return runner

    return run


def hashed(content):
    """Name and hash of a checkpoint in another folder."""
    return '/elsewhere/iter_4.pth', sha256(content).hexdigest()


def test_a_process_without_the_file_gets_it(process, tmp_path):
    runner = process(1, hashed(b'weights'))
    assert runner._load_from == str(tmp_path / 'work' / 'resumed' / 'iter_4.pth')
    assert (tmp_path / 'work' / 'resumed' / 'iter_4.pth').read_bytes() == b'weights'


def test_a_process_with_another_file_keeps_it_and_gets_that_of_the_first(process, tmp_path):
    runner = process(1, hashed(b'weights'), own=b'other weights')
    assert (tmp_path / 'work' / 'iter_4.pth').read_bytes() == b'other weights'
    assert runner._load_from.endswith('resumed/iter_4.pth')


@pytest.mark.parametrize('rank', [0, 1])
def test_processes_with_the_same_file_use_their_own(process, tmp_path, rank):
    runner = process(rank, hashed(b'weights'), own=b'weights')
    assert runner._load_from == str(tmp_path / 'work' / 'iter_4.pth') and not (tmp_path / 'work' / 'resumed').exists()


def test_a_new_run_is_not_resumed(process):
    assert process(0, None)._load_from is None
    assert process(1, None)._load_from is None
    assert process(1, hashed(b'weights'), resume=False)._load_from is None


def test_a_checkpoint_that_only_another_machine_has_is_an_error(process):
    said = 'no checkpoint in .*work, but process 1 has /elsewhere/iter_4.pth.*NODE_RANK=0.*--resume FILE'
    with pytest.raises(CheckpointError, match=said):
        process(0, hashed(b'weights'))
    with pytest.raises(CheckpointError, match='has no /given/iter_4.pth, but process 1'):
        process(0, hashed(b'weights'), named='/given/iter_4.pth')


def test_a_process_without_the_given_file_gets_it(process, tmp_path):
    runner = process(1, hashed(b'weights'), named='/nowhere/iter_4.pth')
    assert Path(runner._load_from).read_bytes() == b'weights'


def test_the_first_process_reads_the_file_in_parts(process, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(
        resuming.torch, 'frombuffer', lambda content, dtype: sent.append(bytes(content)) or FROM(content, dtype=dtype)
    )
    runner = process(0, None, own=b'weights')
    assert runner._load_from == str(tmp_path / 'work' / 'iter_4.pth') and sent == [b'wei', b'ght', b's']


def test_a_moved_work_folder_names_the_checkpoint(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('/other/machine/iter_4.pth')
    with pytest.raises(CheckpointError, match='not the path of a checkpoint.*--resume FILE'):
        check_last_checkpoint(tmp_path)
    (tmp_path / 'iter_4.pth').touch()
    with pytest.raises(CheckpointError, match=f'not the path of a checkpoint.*--resume {tmp_path}/iter_4.pth'):
        check_last_checkpoint(tmp_path)


def test_checkpoints_that_resuming_would_not_use_are_named(tmp_path, caplog):
    check_last_checkpoint(tmp_path)
    (tmp_path / 'resumed').mkdir()
    for name in ('resumed/iter_8.pth', 'resumed/iter_20.pth'):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match='pass --resume .*resumed/iter_20.pth. To start a new run, omit'):
        check_last_checkpoint(tmp_path)
    check_last_checkpoint(tmp_path, first=False)  # another process gets the checkpoint of the first one
    assert not caplog.records
    (tmp_path / 'iter_4.pth').touch()
    check_last_checkpoint(tmp_path)
    assert f'--resume {tmp_path}/iter_4.pth' in caplog.text
