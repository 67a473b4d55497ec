"""Folders for temporary files: which are removed, and when."""

import os
import subprocess
import sys

from rass_mm.files.temporary import temporary_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from rass_mm.files.temporary import temporary_folder

with temporary_folder('a-', Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_lives_as_long_as_its_block(tmp_path):
    with temporary_folder('a-', tmp_path) as folder:
        (folder / 'b').mkdir()
        (folder / 'b' / 'c').touch()
        assert list(tmp_path.iterdir()) == [folder] and folder.name.startswith(f'a-{os.getpid()}-')
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_process_that_is_not_seen_here_stays(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, 'getpid', lambda: 2**22 + 1)  # as in another container: above all numbers of processes
        living = temporary_folder('a-', tmp_path)
        folder = living.__enter__()
    with temporary_folder('a-', tmp_path):
        assert folder.exists()
    living.__exit__(None, None, None)
    assert not list(tmp_path.iterdir())


def test_folders_of_killed_processes_are_removed_and_no_others(tmp_path):
    assert subprocess.run([sys.executable, '-c', KILLED, tmp_path]).returncode == -9
    kept = [tmp_path / name for name in ('a-photos', 'a-1-photos', 'b-1-01234567')]
    for path in kept:
        path.mkdir()
    (tmp_path / 'a-1-01234567').symlink_to(kept[0])
    assert len(list(tmp_path.glob('a-*'))) == 4
    with temporary_folder('a-', tmp_path):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / 'a-1-01234567']) and kept[0].exists()
