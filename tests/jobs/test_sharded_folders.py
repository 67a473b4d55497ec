"""Shards in one output folder: equality with one process, interruptions, failures, and runs that must not be mixed."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sharded import Fake, contents, restore_images

from rass_mm.degradation.builder import build_lq_dataset
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.atomic import MARK, temporary_prefix
from rass_mm.files.locks import held
from rass_mm.files.manifest import MANIFEST
from rass_mm.jobs.merge import merge_shards
from rass_mm.jobs.shard import Shard
from rass_mm.jobs.status import DONE, INCOMPLETE, NEVER, RUNNING, job_state


def states(out):
    return [state.state for state in job_state(out).shards]


def owner(name, count=4):
    return next(number for number in range(count) if Shard(number, count).has(name))


def test_merged_shards_are_the_folder_of_one_process(photos, restore, out, tmp_path):
    one = restore_images(photos, tmp_path / 'one')
    found = [restore(number) for number in (2, 0, 3, 1)]
    assert one.made == sum(summary.made for summary in found) == 30 and min(summary.made for summary in found) > 0
    assert merge_shards(out) == 30
    assert contents(out) == contents(tmp_path / 'one')
    fake = Fake()
    assert restore(fake=fake).made == 0 and not fake.calls
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == ['.rass_mm.verified.jsonl', MANIFEST]


def test_shards_that_begin_at_the_same_moment_make_the_folder_of_one_process(photos, restore, out, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: restore(number, 8), range(8)))
    assert sum(summary.made for summary in found) == merge_shards(out) == 30
    restore_images(photos, tmp_path / 'one')
    assert contents(out) == contents(tmp_path / 'one')


def test_a_finished_shard_does_nothing_and_stays_done(restore, out):
    for number in range(4):
        restore(number)
    fake = Fake()
    assert restore(1, fake=fake).made == 0 and not fake.calls
    assert states(out) == [DONE] * 4


def test_a_shard_without_images_is_done_without_a_model(photos, tmp_path):
    few = tmp_path / 'few'
    few.mkdir()
    shutil.copy(photos / 'part 0' / 'image 0.png', few / 'a.png')
    for number in range(4):
        fake = Fake()
        assert restore_images(few, tmp_path / 'out', number, fake=fake).made == fake.calls == (number == owner('a.png'))
    assert merge_shards(tmp_path / 'out') == 1


def test_a_stopped_shard_resumes(photos, restore, out, tmp_path):
    for number in (0, 1, 3):
        restore(number)
    with pytest.raises(KeyboardInterrupt):
        restore(2, fake=Fake(stop=3))
    assert states(out) == [DONE, DONE, INCOMPLETE, DONE]
    state = job_state(out).shards[2]
    assert len(state.lines) == 2 < state.record['images'] and not state.failed
    said = r'cannot be merged yet:\n  incomplete: shards 2 \(of 4\): give their commands again'
    with pytest.raises(DataError, match=said):
        merge_shards(out)
    assert restore(2).made == state.record['images'] - 2
    merge_shards(out)
    restore_images(photos, tmp_path / 'one')
    assert contents(out) == contents(tmp_path / 'one')


def test_a_finished_shard_that_begins_again_is_not_done_until_it_ends(photos, tmp_path):
    copy, out = shutil.copytree(photos, tmp_path / 'copy'), tmp_path / 'out'
    restore_images(copy, out, 2)
    os.utime(next(copy / name for name in job_state(out).shards[2].lines), ns=(1, 1))
    with pytest.raises(KeyboardInterrupt):
        restore_images(copy, out, 2, fake=Fake(stop=1))
    assert states(out)[2] == INCOMPLETE
    assert restore_images(copy, out, 2).made == 1 and states(out)[2] == DONE


def test_shards_that_never_ran_are_named(restore, out):
    restore(3)
    restore(1)
    assert states(out) == [NEVER, DONE, NEVER, DONE]
    with pytest.raises(DataError, match=r'never ran: shards 0, 2 \(of 4\): start them'):
        merge_shards(out)
    assert not (out / MANIFEST).exists()


def test_failed_images_are_named_and_tried_again(photos, tmp_path):
    copy, out = shutil.copytree(photos, tmp_path / 'copy'), tmp_path / 'out'
    name = 'part 1/image 4.png'
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[:40])
    for number in range(4):
        if number == owner(name):
            with pytest.raises(DataError, match=r'1 of \d images cannot be restored(.|\n)*image 4\.png'):
                restore_images(copy, out, number)
        else:
            restore_images(copy, out, number)
    job = job_state(out)
    assert [bool(state.failed) for state in job.shards] == [number == owner(name) for number in range(4)]
    assert list(job.shards[owner(name)].failed) == [name] and job.done == 29 and not job.complete
    said = rf'incomplete: shards {owner(name)} \(of 4\)(.|\n)*failed in shard \d: {name}: .*4\.png'
    with pytest.raises(DataError, match=said):
        merge_shards(out)
    (copy / name).write_bytes(whole)
    assert restore_images(copy, out, owner(name)).made == 1
    assert merge_shards(out) == 30


def test_shards_of_different_plans_are_not_merged(photos, tmp_path):
    copy, out = shutil.copytree(photos, tmp_path / 'copy'), tmp_path / 'out'
    restore_images(copy, out, 0, 2)
    shutil.copy(copy / 'part 1' / 'image 4.png', copy / 'new.png')
    restore_images(copy, out, 1, 2)
    with pytest.raises(DataError, match='shards 0 and 1 were planned for other images: give their commands again'):
        merge_shards(out)
    restore_images(copy, out, 0, 2)
    assert merge_shards(out) == 31


HOLD = """
import sys, time
from pathlib import Path
from rass_mm.jobs.part import Part
from rass_mm.jobs.shard import Shard
part = Part(Path(sys.argv[1]), [], Shard(int(sys.argv[2]), 4))
with part.held():
    part.claim(part.header({'format': 'x'}, {}))
    print('holding', flush=True)
    time.sleep(60)
"""


def test_two_runs_of_one_shard_exclude_each_other(restore, out):
    restore(0)
    command = [sys.executable, '-c', HOLD.replace("{'format': 'x'}, {}", 'HEADER'), str(out), '1']
    header = json.loads((out / Shard(0, 4).manifest).read_text().splitlines()[0])
    identity = {key: header[key] for key in ('format', 'source', 'options', 'model')}
    command[2] = command[2].replace('HEADER', f'{identity!r}, {identity!r}')
    env = {**os.environ, 'RASS_MM_PLUGIN': '0'}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == 'holding\n'
        with pytest.raises(DataError, match=rf'shard 1 of 4, is in use by process {process.pid} '):
            restore(1)
        restore(2)  # another shard runs meanwhile
        assert states(out) == [DONE, RUNNING, DONE, NEVER]
        assert f'process {process.pid} ' in job_state(out).shards[1].holder
        with pytest.raises(DataError, match=r'running: shards 1 \(of 4\): wait for them'):
            merge_shards(out)
    finally:
        process.kill()
        process.wait()
    assert states(out)[1] == INCOMPLETE
    restore(1)
    restore(3)
    merge_shards(out)


def test_runs_with_other_numbers_of_shards_or_without_are_refused_by_name(photos, restore, out, tmp_path):
    restore(0)
    before = contents(out)
    with pytest.raises(DataError, match=r'job of 4 shards \(manifest\.shard-0-of-4\.jsonl\).*shard 1 of 3'):
        restore(1, 3)
    with pytest.raises(DataError, match=r'job of 4 shards \(manifest\.shard-0-of-4\.jsonl\).*jobs merge'):
        restore()
    assert contents(out) == before
    restore_images(photos, tmp_path / 'one')
    with pytest.raises(DataError, match=r'without shards, or its shards are merged \(manifest\.jsonl\).*shard 0 of 4'):
        restore_images(photos, tmp_path / 'one', 0)


def test_a_shard_is_refused_while_a_run_without_shards_begins(photos, restore, out):
    with held(out), pytest.raises(DataError, match='out is in use by'):
        restore(0)


def test_other_settings_are_refused_although_the_shard_never_ran(restore, out):
    restore(0)
    with pytest.raises(DataError, match=r"0-of-4\.jsonl shows .* other settings:\n  options: .*'overlap': 16.*32"):
        restore(1, overlap=32)
    with pytest.raises(DataError, match='model: {}, now '):
        restore(1, model={'adapter': 'other'})
    assert states(out) == [DONE, NEVER, NEVER, NEVER]
    restore(1)


def test_files_of_unknown_origin_are_not_overwritten_by_a_shard(photos, restore, out):
    name = next(f'part 0/image {number}.png' for number in range(0, 30, 3) if owner(f'part 0/image {number}.png') == 2)
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes(b'mine')
    with pytest.raises(DataError, match=r'would be overwritten, but .* has no manifest\.shard-2-of-4\.jsonl'):
        restore(2)
    assert not (out / Shard(2, 4).manifest).exists()


def test_a_single_image_has_no_shards(photos, out):
    with pytest.raises(ConfigError, match='single image, which has no shards'):
        restore_images(photos / 'part 0' / 'image 0.png', out, 0)


def test_a_shard_removes_temporary_files_of_its_own_images_only(photos, restore, out):
    with pytest.raises(KeyboardInterrupt):
        restore(2, fake=Fake(stop=2))
    names = [path.relative_to(photos) for path in sorted(photos.rglob('*.png'))]
    left = {name: out / name.parent / f'{temporary_prefix(name)}0123abcd.png' for name in names}
    for path in left.values():
        path.write_bytes(b'half')
    (out / f'.manifest.shard-1-of-4{MARK}0123abcd.jsonl').touch()
    restore(2)
    assert all(path.exists() == (owner(name.as_posix()) != 2) for name, path in left.items())
    assert (out / f'.manifest.shard-1-of-4{MARK}0123abcd.jsonl').exists()


def test_long_names_with_the_same_beginning_have_different_temporary_names():
    first, second = (temporary_prefix(Path(f'{"long" * 20}{end}.png')) for end in 'ab')
    assert first != second and len(first) < 60 and temporary_prefix(Path('a.png')) == f'.a{MARK}'


def test_an_interrupted_merge_can_be_repeated(photos, restore, out, tmp_path, monkeypatch):
    from rass_mm.jobs import merge

    for number in range(4):
        restore(number)
    remove, calls = merge._remove, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        remove(*arguments)

    monkeypatch.setattr(merge, '_remove', killed)
    with pytest.raises(KeyboardInterrupt):
        merge_shards(out)
    monkeypatch.undo()
    with pytest.raises(DataError, match='merge of the shards .* was interrupted'):
        job_state(out)
    assert merge_shards(out) == 30
    restore_images(photos, tmp_path / 'one')
    assert contents(out) == contents(tmp_path / 'one')
    with pytest.raises(DataError, match=r'has no shards, but a manifest\.jsonl: they are merged'):
        merge_shards(out)


def test_folders_without_shards_are_named(tmp_path):
    with pytest.raises(DataError, match='absent has no shards. Pass the output folder'):
        merge_shards(tmp_path / 'absent')
    assert not (tmp_path / 'absent').exists()


@pytest.mark.parametrize(
    ('damage', 'said'),
    [
        (lambda out: shutil.copy(out / Shard(0, 4).manifest, out / Shard(1, 4).manifest), 'is that of shard 0 of 4'),
        (lambda out: (out / Shard(0, 4).mark).write_text('{}'), r'done\.json: the key failed is missing'),
        (lambda out: (out / Shard(0, 4).manifest).write_text('{}\n'), 'jsonl, shard: '),
        (lambda out: shutil.copy(out / Shard(0, 4).manifest, out / Shard(0, 2).manifest), 'of 2 and of 4 shards'),
    ],
)
def test_damaged_records_are_named(restore, out, damage, said):
    restore(0)
    damage(out)
    with pytest.raises(DataError, match=said):
        job_state(out)


def test_a_mark_without_its_manifest_is_no_shard_that_ran(restore, out):
    restore(0)
    (out / Shard(0, 4).manifest).unlink()
    job = job_state(out)
    assert states(out) == [NEVER] * 4 and job.planned == job.done == 0 and not job.complete


def test_a_manifest_that_lost_lines_is_incomplete(restore, out):
    restore(0)
    manifest = out / Shard(0, 4).manifest
    manifest.write_text(''.join(manifest.read_text().splitlines(keepends=True)[:-1]))
    assert states(out)[0] == INCOMPLETE
    assert restore(0).made == 1 and states(out)[0] == DONE


def test_a_degraded_copy_in_shards_is_that_of_one_process(photos, tmp_path):
    build_lq_dataset(photos, tmp_path / 'one', seed=3)
    for number in (1, 2, 0):
        build_lq_dataset(photos, tmp_path / 'out', seed=3, shard=Shard(number, 3))
    with pytest.raises(DataError, match='job of 3 shards'):
        build_lq_dataset(photos, tmp_path / 'out', seed=3)
    with pytest.raises(DataError, match='describes a copy with seed 3'):
        build_lq_dataset(photos, tmp_path / 'out', seed=4, shard=Shard(1, 3))
    assert build_lq_dataset(photos, tmp_path / 'out', seed=3, shard=Shard(1, 3)).made == 0
    assert merge_shards(tmp_path / 'out') == 30
    assert contents(tmp_path / 'out') == contents(tmp_path / 'one')
    assert build_lq_dataset(photos, tmp_path / 'out', seed=3).made == 0
    assert contents(tmp_path / 'out') == contents(tmp_path / 'one')


def test_failed_images_of_a_degraded_copy_are_named(photos, tmp_path):
    copy = shutil.copytree(photos, tmp_path / 'copy')
    name = 'part 1/image 4.png'
    (copy / name).write_bytes(b'\x89PNG')
    shard = Shard(owner(name, 2), 2)
    with pytest.raises(DataError, match='1 of .*(.|\n)*remove them, and run the commands of all shards again'):
        build_lq_dataset(copy, tmp_path / 'out', shard=shard)
    assert list(job_state(tmp_path / 'out').shards[shard.number].failed) == [name]
