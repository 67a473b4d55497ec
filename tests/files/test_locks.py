"""Locks of output folders."""

import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rass_mm.errors import DataError
from rass_mm.files.atomic import MARK, write_bytes
from rass_mm.files.locks import LOCK, held, held_beside
from rass_mm.files.manifest import remove_leftovers

HOLD = """
import sys, time
from rass_mm.files.locks import held
with held(sys.argv[1]):
    print('holding', flush=True)
    time.sleep(60)
"""


def raising(error):
    def call(*_, **__):
        raise error

    return call


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, '-c', HOLD, str(tmp_path / 'out')], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'holding\n'
    yield process
    process.kill()
    process.wait()


def test_the_message_names_the_holder(holder, tmp_path):
    message = rf'out is in use by process {holder.pid} on .*\(-c .*out\).*another output'
    with pytest.raises(DataError, match=message), held(tmp_path / 'out'):
        pass
    with held(tmp_path / 'out', '.other.lock'):  # another name is another lock
        assert holder.poll() is None


def test_the_lock_of_a_killed_process_is_free(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / 'out' / LOCK).exists()
    with held(tmp_path / 'out'):
        (tmp_path / 'out' / 'result').touch()
    assert os.listdir(tmp_path / 'out') == ['result']


def test_a_folder_in_which_nothing_was_written_is_removed(tmp_path):
    with held(tmp_path / 'a' / 'b'):
        assert (tmp_path / 'a' / 'b' / LOCK).exists()
    assert not (tmp_path / 'a').exists()


def test_the_lock_beside_a_target_names_the_target(tmp_path):
    target = tmp_path / 'base'
    with held_beside(target):
        assert os.listdir(tmp_path) == ['.base.lock']
        with pytest.raises(DataError, match='base is in use by'), held_beside(target):
            pass
    assert not os.listdir(tmp_path)


WRITE = """
import sys, time
from rass_mm.files.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_bytes(b'half')
    print(temporary, flush=True)
    time.sleep(60)
"""


def test_only_temporary_files_of_processes_that_have_ended_are_removed(tmp_path):
    writer = subprocess.Popen([sys.executable, '-c', WRITE, tmp_path / 'a.json'], stdout=subprocess.PIPE, text=True)
    try:
        temporary = Path(writer.stdout.readline().strip())
        (tmp_path / f'.b{MARK}01234567.json').touch()
        with held(tmp_path):
            assert {path.name for path in tmp_path.iterdir()} == {temporary.name, LOCK}
        remove_leftovers(tmp_path, ['.json'])
        assert temporary.read_bytes() == b'half'
    finally:
        writer.kill()
        writer.wait()
    with held(tmp_path):
        assert not temporary.exists()


def test_a_temporary_file_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    found, lock = [], fcntl.flock

    def slow(handle, operation):
        if not found:
            found.extend(tmp_path.iterdir())
            found[0].unlink()
        lock(handle, operation)

    monkeypatch.setattr('fcntl.flock', slow)
    write_bytes(tmp_path / 'a', b'whole')
    assert found and (tmp_path / 'a').read_bytes() == b'whole'


def test_an_error_releases_the_lock(tmp_path):
    with pytest.raises(ValueError, match='mine'), held(tmp_path):
        raise ValueError('mine')
    with held(tmp_path):
        pass


def test_a_folder_that_cannot_be_locked_is_left_to_the_errors_of_writing(tmp_path, monkeypatch):
    monkeypatch.setattr('filelock.FileLock.acquire', raising(PermissionError(13, 'Permission denied')))
    with held(tmp_path / 'out'):
        (tmp_path / 'out' / 'result').touch()
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['result']


@pytest.mark.parametrize('path', ['file', 'file/out'])
def test_a_file_in_place_of_the_folder_is_an_error(path, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises((FileExistsError, NotADirectoryError), match='file'), held(tmp_path / path):
        raise AssertionError


def test_of_many_at_once_one_goes_on(tmp_path):
    def hold(_):
        try:
            with held(tmp_path):
                count.append(1)
                assert sum(count) == 1
                count.pop()
        except DataError:
            return False
        return True

    count = []
    with ThreadPoolExecutor(8) as pool:
        assert any(pool.map(hold, range(200)))
    assert not os.listdir(tmp_path)
