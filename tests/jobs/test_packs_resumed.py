"""Jobs whose images come out of containers, and whose outputs go into containers: kills, changes and repeated runs."""

import json
import logging
import os

import numpy as np
import pytest
from packed import copied, degraded, files_of, images_in, restored
from PIL import Image
from sharded import Fake, contents

from rass_mm.errors import ConfigError, DataError
from rass_mm.files.containers.kinds import list_container, write_container
from rass_mm.files.manifest import MANIFEST, PARTIAL
from rass_mm.jobs import packing
from rass_mm.jobs.merge import merge_shards
from rass_mm.jobs.part import STAGING
from rass_mm.jobs.shard import Shard

pytestmark = pytest.mark.usefixtures('small_packs')  # of four images


@pytest.mark.parametrize('job', [restored, degraded])
def test_a_changed_image_replaces_the_pack_of_its_shard_after_a_merge(job, photos, tmp_path, out):
    copy = copied(photos, tmp_path / 'photos')
    for number in range(2):
        job(copy, out, number, 2, pack='tar')
    merge_shards(out)
    name, path = files_of(copy)[5]
    replaced = next(pack for pack in out.glob('pack-*') if name in list_container(pack).members)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    assert job(copy, out, pack='tar').made in range(1, 5) and not replaced.exists()
    job(copy, tmp_path / 'again', pack='tar')
    assert images_in(out) == images_in(tmp_path / 'again')


def test_packs_do_not_read_all_lines_for_each_pack(sources, out, monkeypatch):
    calls, packs = [], packing.Packer._packs
    monkeypatch.setattr(packing.Packer, '_packs', lambda packer: calls.append(1) or packs(packer))
    restored(sources['tar'], out, pack='tar')
    assert len(list(out.glob('pack-*'))) == 8 and len(calls) <= 4


class Counting(Fake):
    """Fake that counts the images that were ever processed, in all runs."""

    total = 0

    def __call__(self, images):
        Counting.total += 1
        return super().__call__(images)


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(Counting, 'total', 0)
    return Counting


STEPS = ('write_container', 'append_lines', 'file_state')


def killing(monkeypatch, step, call, late):
    """Ends the process, as far as it can be seen from the disk, before or after a call of a step."""
    calls, function = 0, getattr(packing, step)

    def replaced(*arguments):
        nonlocal calls
        calls += 1
        if calls == call and not late:
            raise KeyboardInterrupt
        result = function(*arguments)
        if calls == call:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(packing, step, replaced)


@pytest.mark.parametrize('number', [None, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize('late', [False, True])
@pytest.mark.parametrize('call', [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize('step', STEPS)
def test_a_kill_between_the_steps_of_a_pack_repeats_no_image(
    step, call, late, number, sources, expected, out, monkeypatch, counted
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killing(patch, step, call, late)
        restored(sources['tar'], out, number, 2, counted(), pack='tar')
    restored(sources['tar'], out, number, 2, counted(), pack='tar')
    names = {name for name in expected[restored] if number is None or Shard(number, 2).has(name)}
    assert images_in(out) == {name: expected[restored][name] for name in names} and Counting.total == len(names)
    assert not list(out.glob(f'{STAGING}*'))


def test_a_kill_within_the_lines_of_a_pack_repeats_no_image(sources, expected, out, monkeypatch, counted):
    def half(path, lines):
        text = ''.join(json.dumps(line) + '\n' for line in lines)
        with path.open('a') as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, 'append_lines', half)
        restored(sources['parquet'], out, fake=counted(), pack='tar')
    restored(sources['parquet'], out, fake=counted(), pack='tar')
    assert images_in(out) == expected[restored] and Counting.total == 30


@pytest.mark.parametrize('stop', [1, 3, 4, 5, 30])
def test_an_interrupted_run_repeats_the_image_in_progress_only(stop, sources, expected, out, counted):
    with pytest.raises(KeyboardInterrupt):
        restored(sources['tar'], out, fake=counted(stop=stop), pack='parquet')
    (out / STAGING).mkdir(exist_ok=True)
    (out / STAGING / 'image-leftover.png').write_bytes(b'x')
    restored(sources['tar'], out, fake=counted(), pack='parquet')
    assert images_in(out) == expected[restored] and Counting.total == 31 and not (out / STAGING).exists()


@pytest.mark.parametrize('job', [restored, degraded])
@pytest.mark.parametrize(
    'change', ['remove', 'flip', *(pytest.param(c, marks=pytest.mark.slow) for c in ('cut', 'other'))]
)
def test_a_damaged_pack_is_made_again(job, change, sources, expected, out, caplog):
    job(sources['folder'], out, pack='tar')
    pack = out / 'pack-00002.tar'
    data = bytearray(pack.read_bytes())
    pack.unlink()
    if change == 'other':
        write_container(pack, files_of(sources['folder'])[:4])
    elif change != 'remove':
        data[700] ^= 1
        pack.write_bytes(data[: 600 if change == 'cut' else None])
    with caplog.at_level(logging.WARNING):
        assert job(sources['folder'], out, pack='tar').made == 4
    assert 'pack-00002.tar is missing, damaged or incomplete' in caplog.text
    assert images_in(out) == expected[job] and job(sources['folder'], out, pack='tar').made == 0


@pytest.mark.parametrize('job', [restored, degraded])
def test_a_changed_image_makes_its_whole_pack_again(job, photos, tmp_path, out):
    copy = copied(photos, tmp_path / 'photos')
    job(copy, out, pack='tar')
    changed = files_of(copy)[5]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(changed[1])
    assert job(copy, out, pack='tar').made == 4 and not (out / 'pack-00001.tar').exists()
    job(copy, tmp_path / 'again', pack='parquet')
    assert images_in(out) == images_in(tmp_path / 'again')


@pytest.mark.parametrize('shard', [(), (0, 1)])
@pytest.mark.parametrize('job', [restored, degraded])
def test_packs_stay_until_the_first_result_of_a_pool(job, shard, photos, tmp_path, out):
    def absent(*_):
        raise ConfigError('There is no Ray cluster')
        yield

    copy = copied(photos, tmp_path / 'photos')
    job(copy, out, *shard, pack='tar')
    before = images_in(out)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(files_of(copy)[5][1])
    with pytest.raises(ConfigError, match='no Ray'):
        job(copy, out, *shard, pack='tar', pool=absent)
    assert images_in(out) == before and job(copy, out, *shard, pack='tar').made == 4
    job(copy, tmp_path / 'again', pack='tar')
    assert images_in(out) == images_in(tmp_path / 'again')


@pytest.mark.parametrize('shard', [(), (0, 1)])
def test_the_only_pack_of_a_copy_stays_if_a_pool_does_not_start(shard, photos, tmp_path, out):
    def absent(*_):
        raise ConfigError('There is no Ray cluster')
        yield

    copy = copied(photos, tmp_path / 'photos')
    for _, path in files_of(copy)[4:]:
        path.unlink()
    degraded(copy, out, *shard, pack='tar')
    if not shard:
        (out / MANIFEST).rename(out / PARTIAL)  # as if the run was killed after its pack
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(files_of(copy)[0][1])
    with pytest.raises(ConfigError, match='no Ray'):
        degraded(copy, out, *shard, pack='tar', pool=absent)
    assert len(images_in(out)) == 4 and degraded(copy, out, *shard, pack='tar').made == 4
    degraded(copy, tmp_path / 'again')
    assert images_in(out) == images_in(tmp_path / 'again')


@pytest.mark.parametrize('pack', [None, 'tar'])
@pytest.mark.parametrize(
    ('first', 'second'),
    [
        ('folder/*/image 1*.png', 'folder/*/image 2*.png'),
        ('folder/part 0/*.png', 'folder/part 1'),
        ('both/*.tar', 'both/*.parquet'),
        ('both', 'both/*.parquet'),
    ],
)
def test_a_copy_of_other_images_that_still_exist_is_refused(first, second, pack, sources, tmp_path, out):
    folders = {kind: sources[kind] for kind in ('folder', 'both')}
    images, others = (folders[kind] / rest for kind, _, rest in (name.partition('/') for name in (first, second)))
    degraded(images, out, pack=pack)
    before = contents(out)
    with pytest.raises(DataError, match='was made from other images of this source: .* Choose another output folder'):
        degraded(others, out, pack=pack)
    assert contents(out) == before and degraded(images, out, pack=pack).made == 0


def test_a_removed_container_leaves_a_copy(photos, tmp_path, out, caplog):
    for number in range(3):
        write_container(tmp_path / f'{number}.tar', files_of(photos)[number * 6 : number * 6 + 6])
    degraded(tmp_path / '*.tar', out, pack='tar')
    (tmp_path / '1.tar').unlink()
    degraded(tmp_path / '*.tar', out, pack='tar')
    assert images_in(out).keys() == {name for name, _ in [*files_of(photos)[:6], *files_of(photos)[12:18]]}
    assert '6 images' in caplog.text and 'no longer in the source' in caplog.text


@pytest.mark.parametrize('pattern', ['', '**/*.png'])
@pytest.mark.parametrize('removed', [1, 4])
def test_a_removed_image_leaves_its_pack_of_a_copy_at_once(removed, pattern, photos, tmp_path, out, caplog):
    copy = copied(photos, tmp_path / 'photos')
    degraded(copy / pattern, out, pack='tar')
    pack = list_container(out / 'pack-00001.tar').members
    for name, path in files_of(copy):
        if name in list(pack)[:removed]:
            path.unlink()
    assert degraded(copy / pattern, out, pack='tar').made == 4 - removed
    assert len(images_in(out)) == 30 - removed and images_in(out).keys() == {name for name, _ in files_of(copy)}
    assert degraded(copy / pattern, out, pack='tar').made == 0 and 'damaged' not in caplog.text


@pytest.mark.parametrize('job', [restored, degraded])
def test_a_changed_container_makes_its_images_again(job, photos, tmp_path, out):
    source, files = tmp_path / 'photos.tar', files_of(photos)
    write_container(source, files[:6])
    job(source, out, pack='tar')
    write_container(source, files[:7])
    os.utime(source, ns=(1, 1))
    assert job(source, out, pack='tar').made == 7 and len(images_in(out)) == 7


def test_a_full_disk_keeps_finished_images(sources, expected, out, monkeypatch, counted):
    def full(path, files):
        raise OSError(28, 'No space left on device', str(path))

    with monkeypatch.context() as patch, pytest.raises(DataError, match='Finished images are kept'):
        patch.setattr(packing, 'write_container', full)
        restored(sources['tar'], out, fake=counted(), pack='tar')
    restored(sources['tar'], out, fake=counted(), pack='tar')
    assert images_in(out) == expected[restored] and Counting.total == 30
