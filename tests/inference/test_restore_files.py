"""Restoration of folders: subfolders, damaged files, interruptions, changed inputs and options."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rass_mm.errors import ConfigError, DataError
from rass_mm.files.atomic import MARK
from rass_mm.files.manifest import MANIFEST
from rass_mm.files.verified import VERIFIED
from rass_mm.inference import RestoreOptions, manifest, restore_files

OPTIONS = RestoreOptions(window=64, overlap=16)


class Fake:
    """Fake restorer that darkens images, counts calls and raises KeyboardInterrupt at the given call."""

    size_multiple = 16

    def __init__(self, stop=None, result=None):
        self.calls, self.loads, self.stop, self.result = 0, 0, stop, result

    def __call__(self, images):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        assert all(side % 16 == 0 for side in images.shape[2:])
        return self.result(images) if self.result else (images - 1) / 2

    def load(self):
        self.loads += 1
        return self


def restore(source, out, fake=None, options=OPTIONS, model=None):
    """Runs a job; returns the fake restorer and the summary."""
    fake = fake or Fake()
    return fake, restore_files(source, out, fake.load, options, model)


def save(path, height=20, width=30, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def names(folder):
    files = (path for path in folder.rglob('*') if path.is_file() and path.name != VERIFIED)
    return sorted(path.relative_to(folder).as_posix() for path in files)


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    for number, name in enumerate(['a.png', 'b.bmp', 'sub/a.png', 'sub/deep/c.tif']):
        save(folder / name, 20 + number, 33, number)
    (folder / 'notes.txt').write_text('not an image')
    save(folder / '.hidden.png')
    return folder


IMAGES = ['a.png', 'b.bmp', 'sub/a.png', 'sub/deep/c.tif']


def test_a_folder_keeps_names_and_sub_folders(photos, tmp_path):
    _, summary = restore(photos, tmp_path / 'out')
    assert (summary.images, summary.made) == (4, 4)
    assert names(tmp_path / 'out') == sorted([*IMAGES, MANIFEST])
    for name in IMAGES:
        expected = pixels(photos / name).astype(float) / 2
        assert np.abs(pixels(tmp_path / 'out' / name) - expected).max() <= 0.51


def test_a_pattern_keeps_names_below_its_fixed_part(photos, tmp_path):
    restore(f'{photos}/**/*.png', tmp_path / 'deep')
    assert names(tmp_path / 'deep') == ['a.png', MANIFEST, 'sub/a.png']
    restore(f'{photos}/sub/*', tmp_path / 'flat')
    assert names(tmp_path / 'flat') == ['a.png', MANIFEST]
    restore(f'{photos}/*.png', photos / 'out')
    assert names(photos / 'out') == ['a.png', MANIFEST]


def test_a_single_file_goes_to_a_name_or_into_a_folder(photos, tmp_path):
    source = photos / 'a.png'
    restore(source, tmp_path / 'new' / 'result.tif')
    restore(source, tmp_path / 'folder')
    restore(source, f'{tmp_path}/with.dot/')
    (tmp_path / 'there.is').mkdir()
    restore(source, tmp_path / 'there.is')
    for path in ('new/result.tif', 'folder/a.png', 'with.dot/a.png', 'there.is/a.png'):
        assert np.array_equal(pixels(tmp_path / path), pixels(tmp_path / 'folder/a.png'))
    assert names(tmp_path / 'folder') == ['a.png']
    fake, _ = restore(source, tmp_path / 'folder')
    assert fake.calls == 1
    with pytest.raises(DataError, match=r'out\.gif.*\.png'):
        restore(source, tmp_path / 'out.gif')


def test_brackets_in_an_existing_name_are_not_a_pattern(tmp_path):
    restore(save(tmp_path / 'in' / 'a[1].png'), tmp_path / 'out')
    assert names(tmp_path / 'out') == ['a[1].png']


def test_types_that_cannot_be_written_become_png_with_a_warning(tmp_path, caplog):
    save(tmp_path / 'in' / 'a.gif')
    restore(tmp_path / 'in', tmp_path / 'out')
    restore(tmp_path / 'in' / 'a.gif', tmp_path / 'single')
    assert names(tmp_path / 'out') == ['a.png', MANIFEST] and names(tmp_path / 'single') == ['a.png']
    assert 'become PNG' in caplog.text and 'is written as' in caplog.text


def test_nothing_is_done_twice(photos, tmp_path):
    restore(photos, tmp_path / 'out')
    fake, summary = restore(photos, tmp_path / 'out')
    assert (fake.loads, fake.calls, summary.images, summary.made) == (0, 0, 4, 0)
    fake, summary = restore(photos, tmp_path / 'out', options=RestoreOptions(window=64, overlap=16, batch=4))
    assert summary.made == 0


def test_a_stopped_job_resumes(photos, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        restore(photos, tmp_path / 'out', Fake(stop=3))
    assert names(tmp_path / 'out') == ['a.png', 'b.bmp', MANIFEST]
    fake, summary = restore(photos, tmp_path / 'out')
    assert (fake.calls, summary.made) == (2, 2) and names(tmp_path / 'out') == sorted([*IMAGES, MANIFEST])


def test_a_killed_job_resumes(photos, tmp_path):
    out = tmp_path / 'out'
    restore(photos, out)
    manifest = (out / MANIFEST).read_text()
    (out / MANIFEST).write_text(manifest[:-20])  # killed while writing the last line
    (out / 'sub' / f'.a{MARK}0123abcd.png').write_bytes(b'half an image')
    fake, _ = restore(photos, out)
    assert fake.calls == 1 and names(out) == sorted([*IMAGES, MANIFEST])
    assert sorted((out / MANIFEST).read_text().splitlines()) == sorted(manifest.splitlines())


def test_what_changed_or_is_missing_is_made_again(photos, tmp_path):
    restore(photos, tmp_path / 'out')
    save(photos / 'a.png', seed=77)
    os.utime(photos / 'b.bmp', ns=(1, 1))
    (tmp_path / 'out' / 'sub' / 'a.png').unlink()
    save(photos / 'new.png')
    fake, summary = restore(photos, tmp_path / 'out')
    assert (fake.calls, summary.made, summary.images) == (4, 4, 5)
    assert np.abs(pixels(tmp_path / 'out/a.png') - pixels(photos / 'a.png') / 2).max() <= 0.51
    assert restore(photos, tmp_path / 'out')[1].made == 0


@pytest.mark.parametrize(
    'change',
    [
        {'options': RestoreOptions(window=64, overlap=32)},
        {'options': RestoreOptions(window=64, overlap=16, color_fix='adain')},
        {'model': {'adapter': 'other'}},
    ],
)
def test_other_settings_need_another_folder(photos, tmp_path, change):
    restore(photos, tmp_path / 'out', model={'adapter': 'one'})
    before = {name: (tmp_path / 'out' / name).read_bytes() for name in names(tmp_path / 'out')}
    fake = Fake()
    with pytest.raises(DataError, match='other settings'):
        restore(photos, tmp_path / 'out', fake, **{'model': {'adapter': 'one'}, **change})
    assert fake.loads == 0
    assert before == {name: (tmp_path / 'out' / name).read_bytes() for name in names(tmp_path / 'out')}


def test_another_source_needs_another_folder(photos, tmp_path):
    restore(photos, tmp_path / 'out')
    save(tmp_path / 'others' / 'a.png')
    with pytest.raises(DataError, match='others'):
        restore(tmp_path / 'others', tmp_path / 'out')


def test_files_of_unknown_origin_are_not_overwritten(photos, tmp_path):
    save(tmp_path / 'out' / 'sub' / 'a.png')
    with pytest.raises(DataError, match=r'sub/a\.png would be overwritten'):
        restore(photos, tmp_path / 'out')


def test_damaged_images_are_listed_and_the_others_are_restored(photos, tmp_path):
    whole = (photos / 'a.png').read_bytes()
    (photos / 'a.png').write_bytes(whole[: len(whole) // 2])
    (photos / 'sub' / 'a.png').write_text('text')
    with pytest.raises(DataError) as caught:
        restore(photos, tmp_path / 'out')
    message = str(caught.value)
    assert '2 of 4' in message and f'{photos}/a.png' in message and f'{photos}/sub/a.png' in message
    assert 'The other 2 are restored' in message
    assert names(tmp_path / 'out') == ['b.bmp', MANIFEST, 'sub/deep/c.tif']
    (photos / 'a.png').write_bytes(whole)
    (photos / 'sub' / 'a.png').unlink()
    fake, summary = restore(photos, tmp_path / 'out')
    assert (fake.calls, summary.made) == (1, 1)


def test_nan_names_the_image_and_writes_nothing_for_it(photos, tmp_path):
    fake = Fake(result=lambda images: images * torch.nan)
    with pytest.raises(DataError, match=r'4 of 4(.|\n)*a\.png: The restorer returned NaN(.|\n)*float16'):
        restore(photos, tmp_path / 'out', fake)
    assert names(tmp_path / 'out') == [MANIFEST]


def test_a_long_list_of_failures_is_cut(tmp_path):
    for number in range(25):
        (tmp_path / 'in').mkdir(exist_ok=True)
        (tmp_path / 'in' / f'{number}.png').write_text('text')
    with pytest.raises(DataError, match='and 5 more'):
        restore(tmp_path / 'in', tmp_path / 'out')


def test_a_network_that_changes_shapes_ends_the_job(photos, tmp_path):
    with pytest.raises(ConfigError, match=r'changed the shape \(1, 3, 32, 48\) to \(1, 3, 32, 8\)'):
        restore(photos, tmp_path / 'out', Fake(result=lambda images: images[..., :8]))


def test_an_overlap_that_the_restorer_rounds_up_to_the_window_is_refused(photos, tmp_path):
    with pytest.raises(ConfigError, match='multiples of 16'):
        restore(photos, tmp_path / 'out', options=RestoreOptions(window=16, overlap=3))


def test_impossible_outputs_are_refused_before_the_model_is_loaded(photos, tmp_path):
    (tmp_path / 'file').write_text('a regular file')
    single = photos / 'a.png'
    same = save(tmp_path / 'twice' / 'a.png')
    save(tmp_path / 'twice' / 'a.gif')
    impossible = [
        (photos, tmp_path / 'file', 'Cannot write'),
        (photos, tmp_path / 'file' / 'below', 'Cannot write'),
        (single, tmp_path / 'file' / 'below.png', 'Cannot write'),
        (photos, photos, 'in the image folder'),
        (photos, photos / 'out', 'in the image folder'),
        (f'{photos}/*.png', photos, 'in the image folder'),
        (f'{photos}/**/*.png', photos / 'out', 'in the image folder'),
        (photos / 'sub', photos, 'one of the images'),
        (single, single, 'one of the images'),
        (single, photos, 'one of the images'),
        (same.parent, tmp_path / 'out', 'would both become'),
        (tmp_path / 'absent', tmp_path / 'out', 'does not exist'),
        (tmp_path / 'absent' / '*.png', tmp_path / 'out', 'No images'),
        (tmp_path / 'file', tmp_path / 'out' / 'x.gif', 'cannot write images of type .gif'),
    ]
    for source, out, message in impossible:
        fake = Fake()
        if source == photos / 'sub':
            (photos / 'sub' / 'sub').mkdir()
            save(photos / 'sub' / 'sub' / 'a.png')  # would become photos/sub/a.png
        with pytest.raises(DataError, match=message):
            restore(source, out, fake)
        assert fake.loads == 0, (source, out)
    assert single.read_bytes() == save(tmp_path / 'again.png', 20, 33).read_bytes()


def test_a_full_disk_is_reported_and_finished_images_are_kept(photos, tmp_path, monkeypatch):
    from rass_mm.inference import folder

    write, written = folder.write_picture, []

    def full(path, *others):
        if written:
            raise OSError(28, 'No space left on device')
        written.append(path)
        write(path, *others)

    monkeypatch.setattr(folder, 'write_picture', full)
    with pytest.raises(DataError, match='No space left(.|\n)*kept'):
        restore(photos, tmp_path / 'out')
    monkeypatch.undo()
    assert names(tmp_path / 'out') == ['a.png', MANIFEST]
    assert restore(photos, tmp_path / 'out')[1].made == 3


def test_the_manifest_records_how_the_images_were_made(photos, tmp_path):
    restore(photos, tmp_path / 'out', model={'adapter': 'abc', 'seed': 3})
    header, *lines = map(json.loads, (tmp_path / 'out' / MANIFEST).read_text().splitlines())
    assert header['model'] == {'adapter': 'abc', 'seed': 3} and header['options']['window'] == 64
    assert Path(header['source']) == photos and [line['image'] for line in lines] == IMAGES
    assert lines[0]['size'] == (photos / 'a.png').stat().st_size


def test_enlarged_images_keep_their_kind(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (11, 13, 4), np.uint8)
    (tmp_path / 'in').mkdir()
    Image.fromarray(array).save(tmp_path / 'in' / 'rgba.png')
    Image.fromarray(array[..., 0]).save(tmp_path / 'in' / 'grey.png')
    restore(tmp_path / 'in', tmp_path / 'out', options=RestoreOptions(upscale=2.5, window=64, overlap=16))
    assert pixels(tmp_path / 'out/rgba.png').shape == (28, 32, 4) and pixels(tmp_path / 'out/grey.png').shape == (
        28,
        32,
    )


def test_outputs_with_the_same_size_and_time_are_not_read_again(photos, tmp_path, monkeypatch, caplog):
    restore(photos, tmp_path / 'out')
    os.utime(tmp_path / 'out' / VERIFIED, (2**32, 2**32))  # as if some time had passed
    read, honest = [], manifest.output_state
    monkeypatch.setattr(manifest, 'output_state', lambda path, *more: read.append(path.name) or honest(path, *more))
    with caplog.at_level('INFO'):
        assert restore(photos, tmp_path / 'out')[1].made == 0 and read == []
    assert 'checking: 4 of 4 finished images' in caplog.text
    os.utime(tmp_path / 'out' / 'b.bmp', (1, 1))
    assert restore(photos, tmp_path / 'out')[1].made == 0 and read == ['b.bmp']
    (tmp_path / 'out' / VERIFIED).unlink()
    assert restore(photos, tmp_path / 'out')[1].made == 0 and len(read) == 5


@pytest.mark.parametrize('data', [b'', b'text'])
def test_an_output_that_was_damaged_is_made_again(photos, tmp_path, data):
    restore(photos, tmp_path / 'out')
    whole = (tmp_path / 'out' / 'a.png').read_bytes()
    (tmp_path / 'out' / 'a.png').write_bytes(data)
    assert restore(photos, tmp_path / 'out')[1].made == 1
    assert (tmp_path / 'out' / 'a.png').read_bytes() == whole
