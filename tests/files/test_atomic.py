"""Atomic writes: a file is complete or absent."""

import errno
import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rass_mm.files.atomic import MARK, atomic_folder, atomic_path, write_bytes, write_text


def interrupted(target):
    with atomic_path(target) as temporary:
        temporary.write_text('half')
        raise KeyboardInterrupt


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / 'state.json'
    target.write_text('old')
    with pytest.raises(KeyboardInterrupt):
        interrupted(target)
    assert target.read_text() == 'old' and [*tmp_path.iterdir()] == [target]


def test_an_exception_leaves_no_new_file(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / 'state.json')
    assert not [*tmp_path.iterdir()]


def test_success_replaces_the_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / 'state.json'
    target.write_text('old')
    with atomic_path(target) as temporary:
        temporary.write_text('new')
        assert target.read_text() == 'old'
        assert temporary.parent == tmp_path and temporary.suffix == '.json'
    assert target.read_text() == 'new' and [*tmp_path.iterdir()] == [target]


def test_a_failed_rename_leaves_no_temporary(tmp_path):
    (tmp_path / 'taken' / 'inside').mkdir(parents=True)
    with pytest.raises(OSError, match='taken'):
        write_text(tmp_path / 'taken', 'x')
    assert [path.name for path in tmp_path.iterdir()] == ['taken']


def test_others_may_read_the_file(tmp_path):
    write_bytes(tmp_path / 'shared.bin', b'x')
    assert os.stat(tmp_path / 'shared.bin').st_mode & 0o777 == 0o644


def test_folders_are_created_and_text_is_utf8(tmp_path):
    write_text(str(tmp_path / 'a' / 'b' / 'text.txt'), 'Straße')
    assert (tmp_path / 'a' / 'b' / 'text.txt').read_bytes() == 'Straße'.encode()


def test_two_writers_of_the_same_file_do_not_interfere(tmp_path):
    target = tmp_path / 'state'
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        first.write_text('first')
        second.write_text('second')
    assert target.read_text() == 'first' and [*tmp_path.iterdir()] == [target]


def test_a_folder_is_complete_or_absent(tmp_path):
    leftover = tmp_path / f'.out{MARK}abcdefgh'  # of a killed process
    leftover.mkdir()
    (leftover / 'half').write_text('half')
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / 'out') as folder:
        (folder / 'file').write_text('half')
        raise KeyboardInterrupt
    assert not [*tmp_path.iterdir()]
    with atomic_folder(tmp_path / 'out') as folder:
        (folder / 'file').write_text('whole')
        assert not (tmp_path / 'out').exists()
    assert (tmp_path / 'out' / 'file').read_text() == 'whole' and [*tmp_path.iterdir()] == [tmp_path / 'out']


@pytest.mark.parametrize('writer', [atomic_path, atomic_folder])
def test_weights_that_the_system_refuses_are_an_error_that_names_the_target(writer, tmp_path):
    resource = pytest.importorskip('resource')
    target, (before, most) = tmp_path / 'adapter.safetensors', resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match='File too large') as caught, writer(target) as path:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
            save_file({'weight': torch.zeros(100_000)}, path / 'part' if writer is atomic_folder else path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(target)) and not [*tmp_path.iterdir()]


def test_other_errors_of_safetensors_stay_what_they_are(tmp_path):
    (tmp_path / 'broken').write_bytes(b'broken')
    with pytest.raises(SafetensorError), atomic_path(tmp_path / 'target'):
        load_file(tmp_path / 'broken')
