"""The three commands with containers as input and output, against the same commands with files."""

import functools
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import webdataset
from commands import ROOT, environment_of, python
from sharded import COMMANDS, write_images
from test_packs import images_in
from tiny_segmentors import shipped, write_checkpoint

from rass_mm.files.containers.kinds import KINDS, write_container
from rass_mm.files.manifest import read_manifest
from rass_mm.inference.segment import LABELS, OVERLAYS, output_name
from rass_mm.jobs import packing
from rass_mm.jobs.shard import Shard
from rass_mm_cli.main import main


@pytest.fixture(scope='module')
def kit(tmp_path_factory, tiny_base, adapter):
    """Images as a folder and as containers, the options of each command, and what a process makes of the folder."""
    folder = tmp_path_factory.mktemp('kit')
    images = write_images(folder / 'images', 9)
    for kind in KINDS:
        write_container(
            folder / f'images.{kind}', [(p.relative_to(images).as_posix(), p) for p in images.rglob('*.png')]
        )
    checkpoint = write_checkpoint(folder / 'plain.pth', shipped('baselines/resnet_scenes_tiny.py'))
    options = {
        'segment': ['--checkpoint', checkpoint, '--device', 'cpu'],
        'restore': ['--adapter', adapter, '--base', tiny_base, '--window', 32, '--overlap', 0, '--device', 'cpu'],
        'make-lq': ['--workers', '1'],
    }
    kit = SimpleNamespace(folder=folder, images=images, options=options)

    @functools.cache
    def one(command):
        assert command_on(kit, command, images, folder / command) == 0
        return folder / command

    kit.one = one
    return kit


def command_on(kit, command, source, out, *options):
    return main([command, *map(str, (source, out, *kit.options[command], *options))])


def named_for(pack, found):
    """Names of the outputs of `segment` in packs of a kind, from those of its files."""
    if pack != 'tar':
        return found
    parts = (name.partition('/') for name in found)
    return {
        output_name(rest, folder, pack) if folder in (LABELS, OVERLAYS) else f'{folder}/{rest}': found[
            f'{folder}/{rest}'
        ]
        for folder, _, rest in parts
    }


QUICK = (('segment', 'parquet', 'tar'), ('make-lq', 'tar', None))  # test_packs.py has `restore` with a fake network
ALL = [(command, *kinds) for command in COMMANDS for kinds in (('tar', 'parquet'), ('parquet', 'tar'), ('tar', None))]


@pytest.mark.parametrize(
    ('command', 'source', 'pack'),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in ALL],
)
def test_containers_in_shards_make_the_outputs_of_files(command, source, pack, kit, tmp_path):
    out, given = tmp_path / 'out', ['--pack', pack] if pack else []
    for number in (1, 0):
        assert (
            command_on(kit, command, kit.folder / f'images.{source}', out, *given, '--shards', 2, '--shard', number)
            == 0
        )
    assert main(['jobs', 'merge', str(out)]) == 0
    assert images_in(out) == named_for(pack, images_in(kit.one(command)))
    if command == 'segment':
        for name in ('shares.csv', 'shares.json'):
            assert (out / name).read_bytes() == (kit.one(command) / name).read_bytes()
    if command == 'segment' and pack == 'tar':
        urls = [str(path) for path in sorted(out.glob('pack-*.tar'))]
        samples = {sample['__key__']: sample for sample in webdataset.WebDataset(urls, shardshuffle=False)}
        assert sorted(samples) == sorted(
            path.relative_to(kit.images).with_suffix('').as_posix() for path in kit.images.rglob('*.png')
        )
        assert samples['0/0']['labels.png'] == (kit.one(command) / 'labels/0/0.png').read_bytes()
        assert samples['0/0']['overlays.png'] == (kit.one(command) / 'overlays/0/0.png').read_bytes()


def test_a_sheet_of_containers_is_refused(kit, tmp_path, capsys):
    for source, given in (('images.tar', []), ('images', ['--pack', 'tar'])):
        given = ['--sheet', tmp_path / 'sheet.png', *given]
        assert command_on(kit, 'restore', kit.folder / source, tmp_path / 'out', *given) == 1
        assert '--sheet shows image files' in capsys.readouterr().err


def test_containers_and_images_together(kit, tmp_path):
    write_images(tmp_path / 'more', 2)
    (tmp_path / 'more' / '0').rename(tmp_path / 'more' / 'x')
    (tmp_path / 'more' / '1').rename(tmp_path / 'more' / 'y')
    given = ['segment', kit.folder / 'images.tar', tmp_path / 'more', tmp_path / 'out', *kit.options['segment']]
    assert main([*map(str, given), '--pack', 'parquet']) == 0
    names = set(images_in(tmp_path / 'out'))
    assert names == set(images_in(kit.one('segment'))) | {
        f'{folder}/{name}.png' for folder in (LABELS, OVERLAYS) for name in ('x/0', 'y/1')
    }


def kill_after(command, manifest, more):
    """Runs a command and kills it when its manifest has more lines than before."""
    count = len(manifest.read_bytes().splitlines()) if manifest.exists() else 0
    process = subprocess.Popen(command, env=environment_of(), cwd=ROOT)
    while not manifest.exists() or len(manifest.read_bytes().splitlines()) < count + more:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1.5)  # its workers end with it


@pytest.mark.slow
def test_containers_on_ray(kit, tmp_path):
    out = tmp_path / 'out'
    given = ['make-lq', kit.folder / 'images.tar', out, '--pack', 'tar', '--ray', 'local', '--ray-actors', 2]
    done = python('-m', 'rass_mm_cli', *given)
    assert done.returncode == 0, done.stderr[-3000:]
    assert images_in(out) == images_in(kit.one('make-lq')) and not list(out.glob('.r*staged*'))


@pytest.mark.slow
def test_2000_images_in_containers_with_kills(kit, tmp_path):
    """Processes that are really killed, at any time, until the job is done: each image is recorded once."""
    images, source, out = write_images(tmp_path / 'images', 2000), tmp_path / 'images.tar', tmp_path / 'out'
    write_container(source, [(path.relative_to(images).as_posix(), path) for path in images.rglob('*.png')])
    assert command_on(kit, 'make-lq', images, tmp_path / 'one') == 0
    given = ['make-lq', source, out, '--workers', '2', '--pack', 'tar', '--shards', 2]
    script = tmp_path / 'small.py'
    script.write_text(
        'import sys\nfrom rass_mm.jobs import packing\nfrom rass_mm_cli.main import main\n'
        "if __name__ == '__main__':\n    packing.MOST_IMAGES = 100\n    sys.exit(main(sys.argv[1:]))\n"
    )
    for number in range(2):
        command, manifest = (
            [sys.executable, str(script), *map(str, (*given, '--shard', number))],
            out / Shard(number, 2).manifest,
        )
        for more in (30, 170, 260):  # images after which the process is killed: before, within and after a pack
            kill_after(command, manifest, more)
        assert subprocess.run(command, env=environment_of(), cwd=ROOT, check=False).returncode == 0
    assert main(['jobs', 'merge', str(out)]) == 0
    lines = read_manifest(out / 'manifest.jsonl')[1]
    assert len(lines) == 2000 and images_in(out) == images_in(tmp_path / 'one')


def test_packs_have_the_stated_limits():
    assert (packing.MOST_IMAGES, packing.MOST_BYTES) == (1000, 2**28)
