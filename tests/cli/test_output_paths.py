"""Messages of commands for output paths that are of the wrong kind or refused by the operating system."""

import argparse
import errno
import os

import pytest

from rass_mm.cli.guard import guarded
from rass_mm_cli.main import main

CONFIG = 'baselines/resnet_scenes_tiny.py'


def arguments(command, scenes, blocked):
    """Returns the arguments of a command with `blocked` as its output path."""
    data = [f'{split}_dataloader.dataset.data_root={scenes}' for split in ('train', 'val', 'test')]
    runner = ['--cfg-options', *data]
    return {
        'demo': ['--out', blocked],
        'make-scenes': [blocked, '--train', '1', '--val', '0', '--size', '64', '--workers', '1'],
        'make-lq': [scenes / 'img_dir' / 'val', blocked, '--workers', '1'],
        'random-base': [blocked, '--layout', 'scenes-tiny', '--configs-only'],
        'make-base': [blocked, '--scenes', '2', '--vae-steps', '1', '--unet-steps', '1'],
        'train': [CONFIG, '--work-dir', blocked, *runner],
        'test': [CONFIG, blocked.parent / 'none.pth', '--work-dir', blocked.parent / 'work', '--out', blocked, *runner],
        'check-data': [CONFIG, '--json', blocked, '--splits', 'val', '--limit', '1', '--workers', '1', *runner],
    }[command]


COMMANDS = ('demo', 'make-scenes', 'make-lq', 'random-base', 'make-base', 'train', 'test', 'check-data')


@pytest.mark.parametrize('below', [False, True], ids=['file', 'below a file'])
@pytest.mark.parametrize('command', COMMANDS)
def test_a_file_in_place_of_a_folder_is_named_with_the_fix(command, below, scenes, tmp_path, capsys):
    file = tmp_path / 'taken'
    file.write_text('mine')
    blocked = file / 'out' if below or command == 'check-data' else file
    assert main([command, *map(str, arguments(command, scenes, blocked))]) == 1
    message = capsys.readouterr().err.partition('\nerror: ')[2].strip()
    assert message == f'{file} is a file, but a folder was expected. Choose another path, or move the file.'
    assert file.read_text() == 'mine'


def test_a_folder_in_place_of_a_file_is_named_with_the_fix(scenes, tmp_path, capsys):
    assert main(['check-data', *map(str, arguments('check-data', scenes, tmp_path))]) == 1
    message = capsys.readouterr().err
    assert f'error: {tmp_path} is a folder, but a file was expected. Add a file name to the path' in message


@pytest.mark.parametrize(
    ('number', 'told'),
    [
        (errno.EACCES, 'cannot be accessed: Permission denied. Choose another path'),
        (errno.EROFS, 'cannot be accessed: Read-only file system. Choose another path'),
        (errno.ENOENT, 'does not exist. Check the path'),
        (errno.ENAMETOOLONG, 'cannot be used: File name too long. Fix this'),
    ],
)
def test_other_errors_of_a_file_are_one_message(number, told, capsys):
    def run(_arguments):
        raise OSError(number, os.strerror(number), 'some/file')

    assert guarded(argparse.Namespace(run=run)) == 1
    assert capsys.readouterr().err.startswith(f'\nerror: some/file {told}')


def test_an_error_without_a_file_name_keeps_its_traceback():
    def run(_arguments):
        raise ConnectionResetError(errno.ECONNRESET, 'Connection reset by peer')

    with pytest.raises(ConnectionResetError):
        guarded(argparse.Namespace(run=run))


def test_a_full_disk_without_a_file_name_is_explained(capsys):
    def run(_arguments):
        raise OSError(errno.ENOSPC, 'No space left on device')  # of a buffer that is written when its file is closed

    assert guarded(argparse.Namespace(run=run)) == 1
    assert 'A file cannot be written: No space left on device. Free disk space' in capsys.readouterr().err
