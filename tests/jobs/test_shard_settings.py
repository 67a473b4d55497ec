"""Which runs settle the settings of a job, and messages about shards that begin, fail or hold a lock."""

import shutil

import pytest
from sharded import Fake, contents, restore_images

from rass_mm.cli.jobs import described
from rass_mm.degradation.builder import build_lq_dataset
from rass_mm.errors import ConfigError, DataError
from rass_mm.files import locks
from rass_mm.files.locks import held
from rass_mm.inference import RestoreOptions, restore_files
from rass_mm.jobs import part
from rass_mm.jobs.merge import merge_shards
from rass_mm.jobs.shard import Shard
from rass_mm.jobs.status import INCOMPLETE, LISTED, RUNNING, job_state


def states(out):
    return [state.state for state in job_state(out).shards]


def failing_to_load():
    raise ConfigError('no such base')


@pytest.mark.parametrize('count', [4, 3, None])
def test_a_command_that_fails_to_load_its_model_does_not_block_the_corrected_one(photos, restore, out, count):
    with pytest.raises(ConfigError, match='no such base'):
        restore_files(photos, out, failing_to_load, RestoreOptions(), {'base': 'wrong'}, shard=Shard(1, 4))
    assert not contents(out)
    assert restore(None if count is None else 0, count, model={'base': 'right'}).made > 0


def test_a_shard_that_fails_to_load_keeps_what_earlier_runs_left(photos, restore, out):
    with pytest.raises(KeyboardInterrupt):
        restore(1, fake=Fake(stop=2))
    before = contents(out)
    with pytest.raises(ConfigError):
        restore_files(photos, out, failing_to_load, RestoreOptions(window=64, overlap=16), {}, shard=Shard(1, 4))
    assert contents(out) == before and states(out)[1] == INCOMPLETE


@pytest.mark.parametrize('number', [1, 2])
def test_a_shard_that_was_killed_before_its_first_image_does_not_settle_the_settings(photos, restore, out, number):
    with pytest.raises(KeyboardInterrupt):
        restore(1, fake=Fake(stop=1), overlap=32)  # leaves a manifest without lines, like a kill
    assert len((out / Shard(1, 4).manifest).read_text().splitlines()) == 1
    assert restore(number).made > 0
    with pytest.raises(DataError, match='other settings'):
        restore(3 - number, overlap=32)
    for other in range(4):
        restore(other)
    assert merge_shards(out) == 30


def test_a_running_shard_without_images_settles_the_settings(restore, out):
    class Busy(Fake):
        def __call__(self, images):
            with pytest.raises(DataError, match='other settings'):
                restore(2, overlap=32)
            return super().__call__(images)

    assert restore(1, fake=Busy()).made > 0


def test_a_degraded_copy_with_other_settings_is_refused_only_if_it_has_images(photos, tmp_path):
    shard, out = Shard(0, 2), tmp_path / 'out'
    build_lq_dataset(photos, out, seed=3, shard=shard)
    manifest = out / shard.manifest
    with pytest.raises(DataError, match='describes a copy with seed 3'):
        build_lq_dataset(photos, out, seed=4, shard=shard)
    manifest.write_text(manifest.read_text().splitlines(keepends=True)[0])
    assert build_lq_dataset(photos, out, seed=4, shard=shard).made > 0


def test_shards_of_copies_of_different_folders_are_refused(photos, tmp_path, monkeypatch):
    other, out = shutil.copytree(photos, tmp_path / 'other'), tmp_path / 'out'
    build_lq_dataset(photos, out, shard=Shard(0, 2))
    with pytest.raises(DataError, match=rf'other settings:\n  source: {photos}, now {other}\n'):
        build_lq_dataset(other, out, shard=Shard(1, 2))
    monkeypatch.chdir(photos.parent)
    (tmp_path / 'linked').symlink_to(photos)
    for same in (photos.name, tmp_path / 'linked'):
        build_lq_dataset(same, out, shard=Shard(1, 2))
    assert merge_shards(out) == 30


def test_a_shard_waits_long_for_others_that_begin_and_then_names_them(restore, out, monkeypatch):
    assert part.PATIENT >= 600
    monkeypatch.setattr(part, 'PATIENT', 0.1)
    said = r'start of shards in .* is in use by process \d+ .* Shards begin one after the other'
    with held(out, part.SETUP), pytest.raises(DataError, match=said):
        restore(0)


def test_a_shard_lists_its_folder_twice(restore, out, monkeypatch):
    calls, listing = [], part.shards_in
    monkeypatch.setattr(part, 'shards_in', lambda out: (calls.append(out), listing(out))[1])
    restore(0)
    assert len(calls) == 2  # before the lock of the shard, and while it begins


def test_status_shows_each_failed_image_once_and_not_all_of_many(photos, tmp_path):
    copy, out = shutil.copytree(photos, tmp_path / 'copy'), tmp_path / 'out'
    for path in copy.rglob('*.png'):
        path.write_bytes(b'no image')
    with pytest.raises(DataError):
        restore_images(copy, out, 0, 1)
    text = described(job_state(out))
    assert text.count('failed in shard 0: ') == LISTED - 1 and text.endswith('and 11 more')
    assert max(text.count(f' {path.relative_to(copy)}: ') for path in copy.rglob('*.png')) == 1


def test_a_lock_that_cannot_be_opened_is_not_a_free_one(restore, out, monkeypatch):
    class Foreign:
        def __init__(self, *_, **__):
            raise PermissionError

    restore(0)
    (out / Shard(0, 4).lock).write_text('{"process": 7, "host": "far", "command": "x"}')
    monkeypatch.setattr(locks, 'FileLock', Foreign)
    state = job_state(out).shards[0]
    assert state.state == RUNNING and 'process 7 on far (x), or none: ' in state.holder


def test_a_changed_copy_names_the_manifest_of_its_shard(photos, tmp_path):
    shard = Shard(0, 2)
    build_lq_dataset(photos, tmp_path / 'out', shard=shard)
    first = min((tmp_path / 'out').rglob('*.png'))
    shutil.copy(photos / 'part 0' / 'image 0.png', first)
    with pytest.raises(DataError, match=r'so manifest\.shard-0-of-2\.jsonl does not describe it'):
        build_lq_dataset(photos, tmp_path / 'out', shard=shard)
