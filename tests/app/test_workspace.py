"""The temporary folder of the app: nothing stays longer than it must."""

import os
import shutil
import time

import pytest

from rass_mm.app.limits import Limits
from rass_mm.app.workspace import PREFIX, temporary_workspace
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.locks import LOCK


def test_the_folder_is_private_and_removed(tmp_path):
    with temporary_workspace(tmp_path) as workspace:
        file = workspace.new('a' * 300, '_restored.png')
        file.write_bytes(b'1234')
        assert workspace.size() == 4 and file.name.endswith('_restored.png')
        assert workspace.folder.stat().st_mode & 0o077 == 0
        assert workspace.new('b', '.png').parent != file.parent
    assert not list(tmp_path.iterdir())


def test_old_files_are_removed_and_those_of_the_page_are_kept(tmp_path):
    with temporary_workspace(tmp_path) as workspace:
        files = [workspace.new(name, '.png') for name in ('example', 'old', 'new')]
        files[0].write_bytes(b'')
        workspace.keep()
        for file in files:
            file.write_bytes(b'')
        hour = time.time() - 3600
        for file in files[:2]:
            os.utime(file, (hour, hour))
            os.utime(file.parent, (hour, hour))
        workspace.sweep(60)
        assert [file.exists() for file in files] == [True, False, True]
        os.utime(files[1].parent, (hour, hour))  # removing the file has changed it
        workspace.sweep(60)
        assert not files[1].parent.exists()


def test_folders_of_killed_apps_are_removed(tmp_path):
    killed, foreign = tmp_path / f'{PREFIX}killed', tmp_path / f'{PREFIX}foreign'
    for folder in (killed, foreign):
        folder.mkdir()
        (folder / 'photo.png').write_bytes(b'')
    (killed / LOCK).write_text('{}')
    with temporary_workspace(tmp_path), temporary_workspace(tmp_path):
        assert not killed.exists() and foreign.exists()
        assert len(list(tmp_path.iterdir())) == 3  # the first of the two runs and is kept


@pytest.mark.parametrize('name', ['max_pixels', 'max_megabytes', 'max_files', 'keep'])
def test_limits_are_positive(name):
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: 0})


def test_files_of_a_running_job_are_kept(tmp_path):
    with temporary_workspace(tmp_path) as workspace:
        upload, result = workspace.new('upload', '.png'), workspace.new('result', '.png')
        upload.write_bytes(b'')
        hour = time.time() - 3600
        os.utime(upload, (hour, hour))
        with workspace.used([upload]):
            result.write_bytes(b'')
            workspace.sweep(-10)  # as if the job had lasted ten seconds more than files are kept
            assert upload.exists() and result.exists()
        workspace.sweep(-10)
        assert not upload.exists() and not result.exists()


def test_files_of_waiting_jobs_are_kept(tmp_path):
    with temporary_workspace(tmp_path) as workspace:
        upload = workspace.new('upload', '.png')
        upload.write_bytes(b'')
        hour = time.time() - 3600
        os.utime(upload, (hour, hour))
        workspace.sweep(1800, waiting=2000)  # was 1600 seconds old when its job began to wait
        assert upload.exists()
        workspace.sweep(1800)
        assert not upload.exists()


def test_a_full_workspace_takes_no_more(tmp_path):
    with temporary_workspace(tmp_path, most=10) as workspace:
        workspace.reserve(6)
        with pytest.raises(DataError, match='at most'):
            workspace.reserve(5)
        workspace.reserve(4)
        for name in ('restored', 'labels'):  # an upload that does not arrive stops no runs
            workspace.new(name, '.png').write_bytes(b'a')
        workspace.release(10)
        file = workspace.new('a', '.png')
        file.write_bytes(bytes(11))
        with pytest.raises(DataError, match='at most'):
            workspace.new('b', '.png')


def test_a_kill_while_files_are_removed_leaves_a_folder_that_the_next_start_removes(tmp_path, monkeypatch):
    removed = []

    def killed(place, **settings):
        removed.append((place, [folder for folder in tmp_path.glob(f'{PREFIX}*') if (folder / LOCK).is_file()]))

    with temporary_workspace(tmp_path) as workspace:
        workspace.new('a', '.png').write_bytes(b'')
        monkeypatch.setattr(shutil, 'rmtree', killed)
        workspace.close()
        monkeypatch.undo()
        with pytest.raises(DataError, match='stopped'):
            workspace.new('b', '.png')
    assert removed and all(with_lock for _, with_lock in removed)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_removed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'rmtree', lambda place, **settings: None)
    with pytest.raises(DataError, match='could not be removed'), temporary_workspace(tmp_path) as workspace:
        workspace.new('a', '.png').write_bytes(b'')
