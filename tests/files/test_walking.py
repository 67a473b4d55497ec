"""Search of folders: links are followed as by mmseg, cycles end, patterns match as `glob`, nothing has no hash."""

import glob
import hashlib
import os
import shutil

import pytest
from mmengine.fileio import list_dir_or_file

from rass_mm.degradation.builder import build_lq_dataset
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.hashing import content_hash, files_sha256
from rass_mm.files.walking import chosen_files, described_left_out, matching, walk


@pytest.fixture
def linked(tmp_path):
    """Folder with a plain file, a real subfolder, a linked one, hidden names and a file of another type."""
    folder, disk = tmp_path / 'in', tmp_path / 'disk' / 'paris'
    for file in (folder / 'a.jpg', folder / 'berlin' / 'b.jpg', disk / 'c.jpg', disk / 'deep' / 'd.jpg'):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    (folder / '.hidden').mkdir()
    for name in ('.hidden/e.jpg', '.f.jpg', 'notes.txt', 'g.HEIC', 'README'):
        (folder / name).write_text(name)
    (folder / 'paris').symlink_to(disk)
    (folder / 'h.jpg').symlink_to(tmp_path / 'absent.jpg')
    return folder


def test_links_are_followed_as_by_mmseg(linked):
    expected = sorted(list_dir_or_file(str(linked), list_dir=False, suffix='.jpg', recursive=True))
    names, left_out = chosen_files(linked, walk(linked), ('.jpg',))
    assert names == expected and 'paris/deep/d.jpg' in names
    assert left_out == {
        'broken links or special files': ['h.jpg'],
        'files of type .heic': ['g.HEIC'],
        'files of type .txt': ['notes.txt'],
        'files without a suffix': ['README'],
        'hidden files': ['.f.jpg'],
    }
    assert 'Left out: files of type .txt (1), e.g. notes.txt' in described_left_out(left_out)


def test_a_folder_that_contains_itself_is_searched_once(linked, caplog):
    before = sorted(walk(linked))
    for name in ('x', 'y'):
        (linked / 'berlin' / name).symlink_to(linked)
        (linked / 'paris' / name).symlink_to(linked / 'paris')
    assert sorted(walk(linked)) == before and 'is a link to a folder that contains it' in caplog.text
    assert len(list(matching(linked / '**' / '*.jpg'))) == len([path for path in before if not hidden(path, linked)])


def hidden(path, root):
    return path.suffix != '.jpg' or any(part.startswith('.') for part in path.relative_to(root).parts)


@pytest.mark.parametrize(
    'pattern', ['*', '*.jpg', '**/*.jpg', 'p*/**', '**/d*/*', '[ab]*', '.hidden/**/*.jpg', 'no/**/*']
)
def test_patterns_match_as_glob(linked, pattern, monkeypatch):
    (linked / 'h.jpg').unlink()  # glob omits broken links in some patterns
    for given in (linked / pattern, linked.relative_to(linked.parent) / pattern):
        monkeypatch.chdir(linked.parent)
        expected = {path for path in glob.glob(str(given), recursive=True) if os.path.isfile(path)}
        assert {str(path) for path in matching(given) if path.is_file()} == expected


def test_a_folder_that_cannot_be_read_is_named(linked, monkeypatch):
    scan = os.scandir

    def refused(folder):
        if folder == linked / 'berlin':
            raise PermissionError(13, 'Permission denied', str(folder))
        return scan(folder)

    monkeypatch.setattr(os, 'scandir', refused)
    with pytest.raises(DataError, match='berlin cannot be searched: Permission denied'):
        list(walk(linked))


def test_a_base_of_linked_parts_has_the_hash_of_its_files(tiny_base, tmp_path):
    base = tmp_path / 'tiny'
    base.mkdir()
    for part in tiny_base.iterdir():
        (base / part.name).symlink_to(part)
    assert content_hash(base) == content_hash(tiny_base) != hashlib.sha256().hexdigest()[:16]


def test_nothing_has_no_hash(tmp_path):
    (tmp_path / 'empty.safetensors').touch()
    for path, said in ((tmp_path / 'empty.safetensors', 'is empty'), (tmp_path / 'folder', 'no weights or configs')):
        (tmp_path / 'folder').mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=said):
            content_hash(path)
    (tmp_path / 'folder' / 'unet.safetensors').symlink_to(tmp_path / 'absent')
    with pytest.raises(ConfigError, match=r'unet\.safetensors is a broken link'):
        content_hash(tmp_path / 'folder')
    with pytest.raises(ConfigError, match='list of files is empty'):
        files_sha256([])


def test_a_degraded_copy_follows_links_counts_what_is_left_out_and_overwrites_nothing(scenes, tmp_path, caplog):
    clean, disk = tmp_path / 'data' / 'val', tmp_path / 'disk'
    first, second = sorted((scenes / 'img_dir' / 'val').iterdir())[:2]
    for folder in (clean / 'berlin', disk / 'paris'):
        folder.mkdir(parents=True)
        shutil.copy(first, folder / 'x.png')
    shutil.copy(second, clean / 'berlin' / os.fsdecode(b'm\xfcnze.png'))
    (clean / 'paris').symlink_to(disk / 'paris')
    (clean / 'notes.txt').write_text('text')
    assert build_lq_dataset(clean, tmp_path / 'lq').images == 3
    assert (tmp_path / 'lq' / 'paris' / 'x.png').is_file() and 'files of type .txt (1)' in caplog.text
    assert build_lq_dataset(clean, tmp_path / 'lq').made == 0
    assert (tmp_path / os.fsdecode(b'lq/berlin/m\xfcnze.png')).is_file()
    with pytest.raises(DataError, match='link into the output folder'):
        build_lq_dataset(clean, disk)
    (clean / 'val' / 'berlin').mkdir(parents=True)
    shutil.copy(first, clean / 'val' / 'berlin' / 'x.png')
    with pytest.raises(DataError, match='one of the images to degrade'):
        build_lq_dataset(clean, clean.parent)


def test_images_above_the_limit_are_not_degraded(scenes, tmp_path):
    with pytest.raises(DataError, match='(?s)96x96 pixels.*--max-pixels 9216'):
        build_lq_dataset(scenes / 'img_dir' / 'val', tmp_path / 'lq', max_pixels=9215)
    assert build_lq_dataset(scenes / 'img_dir' / 'val', tmp_path / 'lq', max_pixels=9216).images == 4
