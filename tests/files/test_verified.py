"""Record of the files that were compared with their manifest."""

import json
import os
import shutil

import pytest

from rass_mm.files.verified import VERIFIED, Verified, file_state

OLD = 10**18
"""A modification time before that of the record."""


class Comparison:
    """Comparison of a file with its checksum that counts its calls."""

    def __init__(self, state='whole'):
        self.state, self.calls = state, 0

    def __call__(self):
        self.calls += 1
        return self.state


def written(path, time=OLD):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('content')
    os.utime(path, ns=(time, time))
    return path


def read(folder, path, checksum=7, state='whole'):
    """Returns whether a new run reads the file."""
    compare = Comparison(state)
    assert Verified(folder).state_of(path, checksum, compare) == (state if compare.calls else 'whole')
    return compare.calls == 1


@pytest.fixture
def file(tmp_path):
    return written(tmp_path / 'out' / 'sub' / 'a.png')


def test_a_file_is_read_once_until_it_changes(file, tmp_path):
    out = tmp_path / 'out'
    assert read(out, file) and not read(out, file)
    os.utime(file, ns=(OLD + 1, OLD + 1))
    assert read(out, file) and not read(out, file)
    file.write_text('longer content')
    os.utime(file, ns=(OLD + 1, OLD + 1))
    assert read(out, file) and not read(out, file)
    assert len((out / VERIFIED).read_text().splitlines()) == 1  # lines that were replaced are removed


def test_another_checksum_in_the_manifest_is_compared(file, tmp_path):
    out = tmp_path / 'out'
    assert read(out, file, 7) and read(out, file, 'abc') and read(out, file, None) and not read(out, file, None)


@pytest.mark.parametrize('state', ['changed', 'damaged'])
def test_only_whole_files_are_recorded(file, tmp_path, state):
    assert read(tmp_path / 'out', file, state=state) and read(tmp_path / 'out', file, state=state)


def test_a_file_as_new_as_the_record_is_read(file, tmp_path):
    """It can change within the resolution of the clock, after it was recorded."""
    out = tmp_path / 'out'
    read(out, file)
    os.utime(out / VERIFIED, ns=(OLD, OLD))
    assert read(out, file) and not read(out, file)


def test_a_folder_that_was_moved_keeps_its_record(file, tmp_path):
    read(tmp_path / 'out', file)
    shutil.move(tmp_path / 'out', tmp_path / 'moved')
    assert not read(tmp_path / 'moved', tmp_path / 'moved' / 'sub' / 'a.png')


def test_files_outside_the_folder_have_their_absolute_path(tmp_path, monkeypatch):
    first, second = (written(tmp_path / name / 'a.png') for name in ('first', 'second'))
    (tmp_path / 'out').mkdir()
    assert read(tmp_path / 'out', first) and read(tmp_path / 'out', second)
    monkeypatch.chdir(first.parent)
    assert not read(tmp_path / 'out', first.relative_to(first.parent))


def test_names_can_be_any_bytes(tmp_path):
    file = written(tmp_path / os.fsdecode(b'\xff\n a.png'))
    assert read(tmp_path, file) and not read(tmp_path, file)


@pytest.mark.parametrize(
    'line', ['{"file": "sub/a', '[1]', '{"file": "sub/a.png", "size": "7"}', '', '\0\0', '[' * 50_000]
)
def test_damaged_lines_are_removed(file, tmp_path, line):
    out = tmp_path / 'out'
    read(out, file)
    good = (out / VERIFIED).read_text()
    (out / VERIFIED).write_text(line + '\n' + good)
    assert not read(out, file) and (out / VERIFIED).read_text() == good
    (out / VERIFIED).write_text(line)
    assert read(out, file)


def test_without_a_record_files_are_read(file, tmp_path, caplog):
    out = tmp_path / 'out'
    (out / VERIFIED).mkdir()  # it can neither be read nor written
    verified, compare = Verified(out), Comparison()
    assert verified.state_of(file, 7, compare) == 'whole'
    verified.add(file, file_state(file), 8)
    assert compare.calls == 1 and caplog.text.count('cannot be written') == 1


def test_a_missing_file_is_compared(tmp_path):
    assert read(tmp_path, tmp_path / 'none.png', state='damaged') and not (tmp_path / VERIFIED).exists()


def test_the_lines_name_the_file_and_its_state(file, tmp_path):
    read(tmp_path / 'out', file)
    line = json.loads((tmp_path / 'out' / VERIFIED).read_text())
    assert line == {'file': 'sub/a.png', 'size': 7, 'mtime_ns': OLD, 'checksum': 7}
