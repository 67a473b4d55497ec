"""Jobs on Ray: on this machine, on a cluster of two nodes on this machine, and with ends of any process in between."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ROOT, environment_of, python
from launched import LOCAL, on_ray, options_of
from ray_jobs import DRIVER, lines_of, names_in, processes_of, processor_seconds, start, wait_for
from sharded import command_on, contents, write_images

from rass_mm.errors import ConfigError
from rass_mm.files.manifest import MANIFEST
from rass_mm.jobs.part import token_prefix
from rass_mm.jobs.shard import Shard
from rass_mm_cli.main import main

pytestmark = pytest.mark.skipif(find_spec('ray') is None, reason='needs the extra [ray]')


@pytest.mark.slow
def test_ray_on_this_machine_makes_the_folder_of_one_process(kit, tmp_path, temporary):
    env = {'TMPDIR': str(temporary)}
    done = on_ray(kit, 'restore', tmp_path / 'out', *LOCAL, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(tmp_path / 'out') == contents(kit.one['restore'])
    assert '9 of 9 images restored now' in done.stdout and 'Ray: 2 processes with one CPU thread each' in done.stderr
    assert not re.search(r'ray::|raylet|INFO|Warning', done.stderr), done.stderr
    assert not list(temporary.iterdir())
    wait_for(lambda: not processes_of(temporary), 10)


@pytest.mark.slow
@pytest.mark.parametrize('command', ['segment', 'make-lq'])
def test_the_other_commands_make_the_folder_of_one_process(command, kit, tmp_path):
    done = on_ray(kit, command, tmp_path / 'out', *LOCAL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(tmp_path / 'out') == contents(kit.one[command])


@pytest.mark.slow
def test_an_exported_model_in_actors_makes_the_images_of_one_process(kit, tmp_path):
    pytest.importorskip('onnxruntime')
    options = dict(zip(kit.options['restore'][::2], kit.options['restore'][1::2], strict=True))
    given = (options['--adapter'], tmp_path / 'model', '--format', 'onnx', '--window', 64, '--base', options['--base'])
    assert main(['export', *map(str, given)]) == 0
    exported = SimpleNamespace(
        images=kit.images, options={'restore': ['--adapter', tmp_path / 'model', '--backend', 'onnx']}
    )
    assert command_on(exported, 'restore', tmp_path / 'one') == 0
    done = on_ray(exported, 'restore', tmp_path / 'out', *LOCAL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(tmp_path / 'out') == contents(tmp_path / 'one') and 'Backend: onnx' in done.stderr


@pytest.mark.slow
def test_damaged_images_have_the_messages_and_the_status_of_one_process(kit, tmp_path, capsys):
    images = shutil.copytree(kit.images, tmp_path / 'images')
    (images / '0' / '0.png').write_bytes(b'\x89PNG')
    (images / '1' / '4.png').write_bytes(b'')
    given = ['restore', str(images), str(tmp_path / 'one'), *map(str, kit.options['restore'])]
    assert main(given) == 1
    expected = capsys.readouterr().err.partition('error: ')[2]
    done = on_ray(kit, 'restore', tmp_path / 'out', *LOCAL, images=images)
    said = done.stderr.partition('error: ')[2]
    assert done.returncode == 1 and sorted(said.splitlines()) == sorted(expected.splitlines())
    assert contents(tmp_path / 'out') == contents(tmp_path / 'one')


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(kit, tmp_path, temporary):
    images = write_images(tmp_path / 'images', 1500)
    command = ['-m', 'rass_mm_cli', 'restore', images, tmp_path / 'out', *options_of(kit, 'restore'), *LOCAL]
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment_of({'TMPDIR': str(temporary)}),
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    manifest = tmp_path / 'out' / MANIFEST
    wait_for(lambda: len(lines_of(manifest)) > 20, process=process)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and 'Interrupted. Finished images are kept' in said and 'Traceback' not in said
    assert 20 < len(lines_of(manifest)) < 1500
    assert not list(temporary.iterdir())
    wait_for(lambda: not processes_of(temporary), 10)
    assert not [path for path in (tmp_path / 'out').iterdir() if path.suffix == '.token']


@pytest.mark.parametrize('address', ['local', '10.0.0.1:6379'])
def test_ray_is_connected_outside_of_the_working_directory(address, tmp_path, monkeypatch):
    cluster, found = importlib.import_module('rass_mm.jobs.ray.cluster'), []

    def refuse(**_):
        found.append(os.getcwd())
        raise ConnectionError('refused')

    monkeypatch.setattr(cluster.ray, 'init', refuse)
    monkeypatch.setattr(cluster.socket, 'create_connection', lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match='refused'), cluster.connected(address, 1):
        pass
    assert found == ['/'] and os.getcwd() == str(tmp_path)


@pytest.mark.parametrize('address', ['127.0.0.1:1', '[::1]:1', 'no-such-machine.invalid:6379'])
def test_an_address_without_a_cluster_is_an_error_at_once(address, monkeypatch):
    cluster = importlib.import_module('rass_mm.jobs.ray.cluster')
    monkeypatch.setattr(cluster.ray, 'init', lambda **_: pytest.fail('Ray tries for minutes'))
    with pytest.raises(ConfigError, match='There is no Ray cluster at'), cluster.connected(address, 1):
        pass


def test_a_ray_that_may_listen_everywhere_is_not_started(monkeypatch):
    cluster = importlib.import_module('rass_mm.jobs.ray.cluster')
    monkeypatch.delattr(cluster.ray_constants, 'ENABLE_RAY_CLUSTER')
    monkeypatch.setattr(cluster.ray, 'init', lambda **_: pytest.fail('Ray is started'))
    said = r'Install the version of Ray in requirements/lock\.txt'
    with pytest.raises(ConfigError, match=said), cluster.connected('local', 1):
        pass


def test_the_files_of_a_pool_name_its_shard(tmp_path):
    module, manifest = importlib.import_module('rass_mm.jobs.ray.pool'), tmp_path / Shard(1, 2).manifest
    with module._token(manifest) as token:
        mark = module.Order(None, tmp_path, token, []).mark(7)
        mark.touch()
        assert token.name.startswith(token_prefix(manifest)) and mark.name.startswith(token_prefix(manifest, 7))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_processes_import_nothing_from_the_working_directory(kit, tmp_path):
    for name in ('cv2', 'torch'):
        (tmp_path / f'{name}.py').write_text(f'open({str(tmp_path / "evil")!r}, "w")\n')
    given = ('-P', '-m', 'rass_mm_cli', 'make-lq', kit.images, 'out', *LOCAL)
    done = python(*given, cwd=tmp_path)
    assert not (tmp_path / 'evil').exists() and done.returncode == 0, done.stderr[-3000:]
    assert contents(tmp_path / 'out') == contents(kit.one['make-lq'])


def listening(process):
    """The local addresses, in hexadecimal, at which a process listens."""
    sockets = set()
    for link in Path(f'/proc/{process}/fd').iterdir():
        with suppress(OSError):
            sockets.add(os.readlink(link))
    rows = [line.split() for name in ('tcp', 'tcp6') for line in lines_of(Path(f'/proc/net/{name}'))[1:]]
    return {row[1].split(':')[0] for row in rows if row[3] == '0A' and f'socket:[{row[9]}]' in sockets}


@pytest.mark.slow
def test_a_local_ray_listens_on_this_machine_only(tmp_path, temporary):
    (tmp_path / 'driver.py').write_text(DRIVER)
    images, log = write_images(tmp_path / 'images', 20000), tmp_path / 'log'
    given = (images, tmp_path / 'out', log, 'local')
    process = start(tmp_path / 'driver.py', *given, env={'TMPDIR': str(temporary)})
    try:
        wait_for(lambda: len(set(lines_of(log))) == 2, process=process)
        own = processes_of(temporary)
        found = {number: listening(number) for number in own}
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert own > {process.pid, *map(int, lines_of(log))} and sum(map(len, found.values())) > 2
    assert {address for addresses in found.values() for address in addresses} <= {
        '0100007F',
        '00000000000000000000000001000000',
        '0000000000000000FFFF00000100007F',
    }


@pytest.fixture(scope='module')
def many(tmp_path_factory, adapter, tiny_base):
    """A script that restores 2,000 images, and its arguments."""
    folder = tmp_path_factory.mktemp('many')
    (folder / 'driver.py').write_text(DRIVER)
    images, model = write_images(folder / 'images', 2000), (adapter, tiny_base)
    return SimpleNamespace(script=folder / 'driver.py', images=images, model=model)


@pytest.fixture(scope='module')
def one(many, tmp_path_factory):
    """The folder that one process makes of the images."""
    folder = tmp_path_factory.mktemp('one')
    process = start(many.script, many.images, folder / 'out', folder / 'log', '', *many.model)
    assert process.wait() == 0 and len(lines_of(folder / 'log')) == 2000
    return folder / 'out'


@pytest.mark.slow
@pytest.mark.parametrize('end', ['none', 'actor', 'driver'])
def test_2000_images_are_those_of_one_process_whichever_process_is_killed(end, many, one, tmp_path, temporary):
    log, out = tmp_path / 'log', tmp_path / 'out'
    arguments, env = (many.script, many.images, out, log, 'local', *many.model), {'TMPDIR': str(temporary)}
    process, recorded = start(*arguments, env=env), 0
    if end == 'actor':
        wait_for(lambda: len(lines_of(log)) > 700, process=process)
        os.kill(int(lines_of(log)[-1]), signal.SIGKILL)
    if end == 'driver':
        wait_for(lambda: len(names_in(out / MANIFEST)) > 700, process=process)
        process.kill()
        process.communicate()
        wait_for(lambda: not processes_of(temporary), 60)
        recorded = len(names_in(out / MANIFEST))
        process = start(*arguments, env=env)
    made, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors[-3000:]
    calls, names = lines_of(log), names_in(out / MANIFEST)
    print(f'killed: {end}; recorded before: {recorded}; processed again: {len(calls) - 2000} of 2000')
    assert int(made.split()[-1]) == 2000 - recorded and len(set(calls)) == {'none': 2, 'actor': 3, 'driver': 4}[end]
    assert len(names) == len(set(names)) == 2000
    assert len(calls) - 2000 <= {'none': 0, 'actor': 8, 'driver': 32}[end]
    assert contents(out) == contents(one)


def measured(many, folder, temporary, addresses):
    """Runs drivers at the same time; returns CPU and wall seconds from the 200th to the last image, and in all."""
    log, seen, begun, start_cpu, start_time = folder / 'log', {}, time.monotonic(), None, None
    given = [(many.script, many.images, folder / 'out', log, address, *many.model) for address in addresses]
    processes = [start(*arguments, env={'TMPDIR': str(temporary)}) for arguments in given]
    while any(process.poll() is None for process in processes):
        cpu = processor_seconds(temporary, seen)
        if start_cpu is None and len(lines_of(log)) >= 200:
            start_cpu, start_time = cpu, time.monotonic()
        if len(lines_of(log)) < 2000:
            end_cpu, end_time = cpu, time.monotonic()
        time.sleep(0.2)
    assert not any(process.returncode for process in processes)
    return end_cpu - start_cpu, end_time - start_time, cpu, time.monotonic() - begun


@pytest.mark.slow
def test_overhead_of_ray_over_two_shards(many, tmp_path, temporary):
    found = {}
    for name, addresses in (('shards', '01'), ('ray', ['local'])):
        (tmp_path / name).mkdir()
        found[name] = measured(many, tmp_path / name, temporary, addresses)
    for place, what in enumerate(('CPU seconds of 1,800 images', 'seconds of 1,800 images', 'CPU seconds', 'seconds')):
        plain, ray = found['shards'][place], found['ray'][place]
        print(f'{what}: 2 shards {plain:.1f}, Ray with 2 actors {ray:.1f}, ratio {ray / plain:.2f}')
    assert found['ray'][0] < 1.5 * found['shards'][0]
