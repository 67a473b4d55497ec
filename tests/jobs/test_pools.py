"""Jobs in a pool: actors of Ray without Ray, in this process. What passes to and from them is pickled."""

import argparse
import importlib
import os
import pickle
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from sharded import COMMANDS, Fake, command_on, contents, restore_images, write_images

from rass_mm.cli import ray_pool
from rass_mm.degradation.builder import build_lq_dataset
from rass_mm.errors import AdapterError, ConfigError, DataError, InstallationError
from rass_mm.files.atomic import MARK
from rass_mm.files.manifest import MANIFEST
from rass_mm.inference import RestoreOptions, restore_files
from rass_mm.jobs.merge import merge_shards
from rass_mm.jobs.part import TOKEN, token_prefix
from rass_mm.jobs.ray.actor import ANSWER, JOBS, REPEATS, Actor, Order
from rass_mm.jobs.shard import Shard
from rass_mm_cli.main import main

OPTIONS = RestoreOptions(window=64, overlap=16)


class FakePool:
    """Two actors that take turns and answer in another order than that of the jobs."""

    def __init__(self, stop=None):
        self.jobs, self.closed, self.stop = 0, False, stop

    def __call__(self, build, jobs, manifest, sources):
        token = manifest.with_name('.ray.token')
        token.touch()
        order = Order(build, Path.cwd(), token, sources)
        actors = [Actor(pickle.loads(pickle.dumps(order))) for _ in range(2)]
        try:
            for start in [*range(3, len(jobs), 3), 0]:
                batch = {JOBS: [pickle.dumps((start, jobs[start : start + 3]))]}
                answer = pickle.loads(actors[start % 2](batch)[ANSWER][0])
                self.jobs += len(answer.results)
                if self.jobs == self.stop:
                    raise DataError('Ray has ended the job')
                yield from answer.results
                if answer.failure:
                    raise answer.failure
        finally:
            token.unlink()
            self.closed = True


def failing():
    raise AdapterError('The adapter does not fit.')


class Full(Fake):
    """Fake restorer on a full disk from the fifth image on."""

    def __call__(self, images):
        if self.calls == 4:
            raise OSError(28, 'No space left on device', 'a.png')
        return super().__call__(images)


def in_pool(photos, out, load=Fake, pool=None, shard=None, options=OPTIONS):
    return restore_files(photos, out, load, options, shard=shard, pool=pool or FakePool())


@pytest.mark.parametrize('command', COMMANDS)
def test_a_pool_makes_the_folder_of_one_process(command, kit, tmp_path, monkeypatch, capsys):
    pool, options = FakePool(), kit.options[command][2 * (command == 'make-lq') :]
    choose = partial(lambda pool, arguments, cards=False: pool, pool)
    monkeypatch.setattr(importlib.import_module(f'rass_mm.cli.{command.replace("-", "_")}'), 'chosen_pool', choose)
    given = [command, *map(str, (kit.images, tmp_path / 'out', *options))]
    assert main(given) == 0 and pool.jobs == 9 and pool.closed
    assert contents(tmp_path / 'out') == contents(kit.one[command])
    capsys.readouterr()
    assert main(given) == 0 and pool.jobs == 9  # nothing to do
    (tmp_path / 'out' / 'shares.csv').unlink(missing_ok=True)
    assert main(given) == 0 and pool.jobs == 9
    assert contents(tmp_path / 'out') == contents(kit.one[command])


def test_shards_in_pools_are_merged_to_the_folder_of_one_process(kit, tmp_path, monkeypatch):
    monkeypatch.setattr('rass_mm.cli.segment.chosen_pool', lambda *_, **__: FakePool())
    for number in range(2):
        assert command_on(kit, 'segment', tmp_path / 'out', '--shards', 2, '--shard', number) == 0
    assert main(['jobs', 'merge', str(tmp_path / 'out')]) == 0
    assert contents(tmp_path / 'out') == contents(kit.one['segment'])


def test_a_degraded_copy_of_a_shard_in_a_pool(photos, tmp_path):
    for number in range(2):
        build_lq_dataset(photos, tmp_path / 'out', shard=Shard(number, 2), pool=FakePool())
    assert merge_shards(tmp_path / 'out') == 30
    build_lq_dataset(photos, tmp_path / 'one')
    assert contents(tmp_path / 'out') == contents(tmp_path / 'one')


def test_damaged_images_are_reported_as_by_one_process(photos, tmp_path):
    copy, said = shutil.copytree(photos, tmp_path / 'copy'), []
    for name in ('part 1/image 4.png', 'part 0/image 9.png'):
        (copy / name).write_bytes(b'\x89PNG')
    for out, run in (('one', restore_images), ('out', in_pool)):
        with pytest.raises(DataError) as error:
            run(copy, tmp_path / out)
        said.append(str(error.value))
    assert said[0] == said[1] and said[0].startswith('2 of 30 images')
    lines = [(tmp_path / out / MANIFEST).read_text().splitlines() for out in ('one', 'out')]
    assert sorted(lines[0]) == sorted(lines[1]) and len(lines[0]) == 29


def test_a_model_that_cannot_be_loaded_settles_no_settings(photos, out):
    with pytest.raises(AdapterError, match='does not fit'):
        in_pool(photos, out, failing)
    assert not (out / MANIFEST).exists()
    assert in_pool(photos, out, options=RestoreOptions(window=64, overlap=32)).made == 30
    with pytest.raises(DataError, match='made with other settings'):
        in_pool(photos, out, failing)
    assert (out / MANIFEST).exists()


@pytest.mark.parametrize('shard', [None, Shard(0, 1)])
@pytest.mark.parametrize('run', [in_pool, build_lq_dataset])
@pytest.mark.parametrize(('error', 'raised'), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, DataError)])
def test_a_pool_that_does_not_start_settles_no_settings(error, raised, run, shard, photos, out):
    def pool(*_):
        raise error
        yield

    with pytest.raises(raised):
        run(photos, out, pool=pool, shard=shard)
    assert not list(out.glob('*.jsonl'))


@pytest.mark.parametrize('run', [in_pool, lambda images, out: build_lq_dataset(images, out, pool=FakePool())])
def test_temporary_files_of_a_replaced_process_are_removed(run, photos, out, monkeypatch):
    begun = Actor.answer

    def leaving(self, jobs):
        self.order.token.with_name(f'.a{MARK}0123abcd.png').touch()
        return begun(self, jobs)

    monkeypatch.setattr(Actor, 'answer', leaving)
    run(photos, out)
    assert not list(out.glob('.a*'))


@pytest.mark.parametrize('run', [in_pool, build_lq_dataset])
def test_files_of_a_killed_pool_are_removed_by_the_next_run_of_its_shard(run, photos, out):
    with pytest.raises(DataError):
        run(photos, out, pool=FakePool(stop=6), shard=Shard(0, 2))
    names = [token_prefix(out / Shard(number, 2).manifest, batch) for number in range(2) for batch in ('', 7)]
    left = [out / f'{name}0123abcd{TOKEN}' for name in names]
    for path in left:
        path.touch()
    run(photos, out, pool=FakePool(), shard=Shard(0, 2))
    assert [path.exists() for path in left] == [False, False, True, True]


def test_a_full_disk_keeps_finished_images(photos, out):
    pool = FakePool()
    with pytest.raises(DataError, match=r'Cannot write the restored images: .*No space left.*a\.png.*Finished'):
        in_pool(photos, out, Full, pool)
    done = len((out / MANIFEST).read_text().splitlines()) - 1
    assert done == pool.jobs > 4 and pool.closed
    assert in_pool(photos, out).made == 30 - done


def test_a_single_image_has_no_pool(photos, out):
    with pytest.raises(ConfigError, match='one process restores. Remove --ray'):
        in_pool(photos / 'part 0' / 'image 0.png', out)


@pytest.mark.parametrize(
    ('change', 'said', 'kind'),
    [
        ({'token': Path('absent/token')}, r'absent is not the output folder of this job.*see the output', DataError),
        ({'sources': [Path('absent')]}, 'absent does not exist. All machines must see the images', DataError),
        ({'folder': Path('absent')}, 'absent, in which the command was given, does not exist', DataError),
        ({'version': '0.0'}, 'but the command runs 0.0. Install the same version', InstallationError),
    ],
)
def test_an_actor_that_does_not_see_the_job_says_so(change, said, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'token').touch()
    given = {'build': lambda: str, 'folder': tmp_path, 'token': Path('token'), 'sources': [tmp_path], **change}
    answer = Actor(Order(**given)).answer([1, 2])
    assert answer.results == [] and type(answer.failure) is kind
    with pytest.raises(kind, match=said):
        raise answer.failure
    assert Actor(Order(**{**given, **dict.fromkeys(change), **{key: GOOD[key](tmp_path) for key in change}})).answer(
        [1, 2]
    ).results == ['1', '2']


def test_images_whose_processes_end_too_often_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # as the actor does
    token = tmp_path / '.ray.token'
    token.touch()
    order = Order(lambda: lambda job: os._exit(3), tmp_path, token, [])
    batch = {JOBS: [pickle.dumps((7, [SimpleNamespace(origin='a.png'), SimpleNamespace(origin='b.png')]))]}
    for _ in range(1 + REPEATS):
        if not (child := os.fork()):
            Actor(order)(batch)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3 and order.mark(7).exists()
    answer = pickle.loads(Actor(order)(batch)[ANSWER][0])
    assert answer.results == [] and not order.mark(7).exists()
    with pytest.raises(DataError, match=r'each of the 4 times that it processed these images.*: a\.png, b\.png\. Fin'):
        raise answer.failure
    assert pickle.loads(Actor(order)({JOBS: [pickle.dumps((8, []))]})[ANSWER][0]).failure is None


GOOD = {
    'token': lambda folder: folder / 'token',
    'sources': lambda folder: [folder],
    'folder': lambda folder: folder,
    'version': lambda folder: Order.version,
}


def test_another_model_on_a_machine_is_an_error():
    ray_pool.check_same({'adapter': 'a', 'dtype': 'float32'}, {'adapter': 'a', 'dtype': 'float32'})
    with pytest.raises(ConfigError, match=r'differs from that of the command:\n  dtype: bfloat16, now float32\n'):
        ray_pool.check_same({'adapter': 'a', 'dtype': 'bfloat16'}, {'adapter': 'a', 'dtype': 'float32'})


@pytest.mark.parametrize('address', ['local', 'auto', '10.0.0.1:6379', 'head-node.cluster:6379', '[::1]:6379'])
def test_addresses(address):
    parser = argparse.ArgumentParser()
    ray_pool.add_ray(parser, 'one')
    assert parser.parse_args(['--ray', address]).ray == address


@pytest.mark.parametrize('address', ['', 'all', '10.0.0.1', 'host:', 'host:0', 'host:70000', 'ray://host:10001'])
def test_wrong_addresses_are_usage_errors(address, kit, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command_on(kit, 'make-lq', tmp_path / 'out', '--ray', address)
    assert ended.value.code == 2 and 'is not local, auto or HOST:PORT' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('command', 'options', 'said'),
    [
        ('restore', ['--ray-actors', '2'], '--ray-actors 2 needs a cluster. Set --ray'),
        ('make-lq', ['--ray', 'local'], '--workers are processes of this machine'),
        ('segment', ['--ray', 'local', '--device', 'cuda:1'], 'Use --device cpu or cuda instead of cuda:1'),
        ('restore', ['--ray', 'local', '--shards', 'auto'], 'Give the command without torchrun'),
    ],
)
def test_options_that_do_not_suit_each_other(command, options, said, kit, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert command_on(kit, command, tmp_path / 'out', *options) == 1
    assert said in ' '.join(capsys.readouterr().err.split()) and not (tmp_path / 'out').exists()


def test_without_ray_the_command_says_how_to_install_it(kit, tmp_path, capsys, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith('rass_mm.jobs.ray.')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'ray', None)
    monkeypatch.setitem(sys.modules, 'ray.data', None)
    assert command_on(kit, 'restore', tmp_path / 'out', '--ray', 'local') == 1
    assert 'pip install "rass_mm[ray]"' in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_images_that_are_pending_are_those_of_a_resumed_job(tmp_path):
    images = write_images(tmp_path / 'images', 12)
    with pytest.raises(DataError):
        in_pool(images, tmp_path / 'out', Full)
    for path in tmp_path.joinpath('out').rglob('1.png'):
        os.truncate(path, 10)
    pool = FakePool()
    in_pool(images, tmp_path / 'out', pool=pool)
    restore_images(images, tmp_path / 'one')
    lines = [(tmp_path / out / MANIFEST).read_text().splitlines() for out in ('one', 'out')]
    assert sorted(lines[0]) == sorted(lines[1])
