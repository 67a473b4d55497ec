"""`rass-mm jobs retry`: the shards that are not done are run by recorded commands, and other commands are refused."""

import json
import logging
import os
import re
import shutil
import signal
import threading

import pytest
from commands import ROOT, server
from ray_jobs import lines_of, wait_for
from sharded import contents, restore_images, write_images

from rass_mm.cli import retry
from rass_mm.files.locks import held
from rass_mm.jobs.commands import Command, with_shard, without_shard
from rass_mm.jobs.shard import Shard
from rass_mm_cli.main import main


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('images') / 'images', 12)


@pytest.fixture
def quick(monkeypatch):
    """Commands in forks of a process that has imported the package."""
    monkeypatch.setattr('rass_mm.cli.retry.sys.executable', str(server().with_name('python')))


def degrade(images, out, *options):
    return main(['make-lq', *map(str, (images, out)), '--workers', '1', *map(str, options)])


def changed(out, number, count, **values):
    """Changes the recorded command of a shard."""
    path = out / Shard(number, count).manifest
    first, *others = path.read_text().splitlines()
    header = json.loads(first)
    header['shard']['command'] |= values
    path.write_text('\n'.join([json.dumps(header), *others]) + '\n')


@pytest.mark.parametrize(
    ('arguments', 'kept'),
    [
        (['a', '--shards', '4', 'b', '--shard', '1'], ['a', 'b']),
        (['--shards=auto', 'a', 'b'], ['a', 'b']),
        (['--shard=3', '--shards=4', '--', '--shards', 'b'], ['--', '--shards', 'b']),
        (['a', '--pack', 'tar'], ['a', '--pack', 'tar']),
    ],
)
def test_the_shard_is_not_part_of_a_recorded_command(arguments, kept):
    assert without_shard(arguments) == kept
    given = with_shard(kept, 2, 5)
    assert without_shard(given) == kept and ('--' not in kept or given.index('--shard') < given.index('--'))
    assert Command('restore', arguments, '/').record() == {'name': 'restore', 'arguments': kept, 'folder': '/'}


def test_failed_interrupted_and_never_run_shards_are_run(images, tmp_path, capfd, caplog, quick, monkeypatch):
    copy, out, one = shutil.copytree(images, tmp_path / 'images'), tmp_path / 'out', tmp_path / 'one'
    assert degrade(copy, one) == 0
    broken = next(path for path in copy.rglob('*.png') if Shard(1, 4).has(path.relative_to(copy).as_posix()))
    whole = broken.read_bytes()
    broken.write_bytes(b'\x89PNG')
    monkeypatch.chdir(tmp_path)
    for name, value in {'ID': 1, 'COUNT': 4, 'MIN': 0, 'MAX': 3, 'STEP': 1}.items():
        monkeypatch.setenv(f'SLURM_ARRAY_TASK_{name}', str(value))
    assert degrade('images', 'out', '--shards', 'auto') == 1
    for name in ('ID', 'COUNT', 'MIN', 'MAX', 'STEP'):
        monkeypatch.delenv(f'SLURM_ARRAY_TASK_{name}')
    assert degrade('images', 'out', '--shards', 4, '--shard', 3) == 0
    broken.write_bytes(whole)
    monkeypatch.chdir('/')
    capfd.readouterr()
    with caplog.at_level(logging.INFO):
        assert main(['jobs', 'retry', str(out)]) == 0
    said = capfd.readouterr()
    assert 'Shard 3 of 4' not in said.err + caplog.text and 'All shards are done. Merge them' in said.out
    for number in (0, 1, 2):
        assert f'Shard {number} of 4, in {tmp_path}: rass-mm make-lq images out --workers 1 --shards 4' in caplog.text
    assert main(['jobs', 'merge', str(out)]) == 0
    found, expected = contents(out), contents(one)
    assert {name: data for name, data in found.items() if name.endswith('.png')} == {
        name: data for name, data in expected.items() if name.endswith('.png')
    }
    assert b'command' not in found['manifest.jsonl']


def test_a_shard_that_fails_again_does_not_stop_the_others(images, tmp_path, capfd, quick):
    copy, out = shutil.copytree(images, tmp_path / 'images'), tmp_path / 'out'
    broken = next(path for path in copy.rglob('*.png') if Shard(0, 3).has(path.relative_to(copy).as_posix()))
    broken.write_bytes(b'\x89PNG')
    assert degrade(copy, out, '--shards', 3, '--shard', 0) == 1
    assert main(['jobs', 'retry', str(out)]) == 1
    assert f'Failed again in {out}: shard 0. The' in capfd.readouterr().err
    assert (out / Shard(1, 3).mark).exists() and (out / Shard(2, 3).mark).exists()


def test_shards_that_were_planned_for_other_images_are_run_until_all_are_the_same(images, tmp_path, capsys, quick):
    copy, out = shutil.copytree(images, tmp_path / 'images'), tmp_path / 'out'
    for number in (0, 1):
        assert degrade(copy, out, '--shards', 2, '--shard', number) == 0
    new = next(copy / f'new {number}.png' for number in range(99) if Shard(0, 2).has(f'new {number}.png'))
    shutil.copy(next(copy.rglob('*.png')), new)
    assert degrade(copy, out, '--shards', 2, '--shard', 0) == 0
    assert main(['jobs', 'retry', str(out)]) == 0
    assert main(['jobs', 'merge', str(out)]) == 0


def test_a_job_that_retry_does_not_complete_is_a_failure(images, tmp_path, capsys, monkeypatch):
    copy, out = shutil.copytree(images, tmp_path / 'images'), tmp_path / 'out'
    assert degrade(copy, out, '--shards', 2, '--shard', 0) == 0
    shutil.copy(next(copy.rglob('*.png')), copy / 'new.png')
    assert degrade(copy, out, '--shards', 2, '--shard', 1) == 0
    monkeypatch.setattr('rass_mm.cli.retry._run', lambda planned: 0)
    assert main(['jobs', 'retry', str(out)]) == 1
    said = capsys.readouterr().out
    assert 'planned for other images' in said and 'jobs retry' not in said


def test_running_shards_are_refused_by_name(images, tmp_path, capsys):
    out = tmp_path / 'out'
    assert degrade(images, out, '--shards', 3, '--shard', 0) == 0
    with held(out, Shard(2, 3).lock, clean=False):
        (out / Shard(2, 3).manifest).write_bytes(
            (out / Shard(0, 3).manifest).read_bytes().replace(b'"number": 0', b'"number": 2').splitlines(True)[0]
        )
        assert main(['jobs', 'retry', str(out)]) == 1
    said = capsys.readouterr().err
    assert f'Running in {out}: shard 2\n' in said and f'process {os.getpid()}' in said


@pytest.mark.parametrize(
    ('values', 'said'),
    [
        ({'name': 'train'}, "records the command 'train', but only segment, restore, make-lq have shards"),
        ({'name': '../../bin/sh'}, "records the command '../../bin/sh'"),
        ({'name': 3}, 'shard.command: name is 3, but it should be a file name'),
        ({'arguments': 'images out; touch evil'}, 'should be a valid list'),
        ({'arguments': ['images', 'out', 3]}, 'arguments.2 is 3, but it should be a text'),
        ({'arguments': ['images', 'elsewhere']}, 'which writes to '),
        ({'arguments': ['images', '$(touch evil)']}, 'which writes to '),
        ({'arguments': ['images', 'out', '--evil', '1']}, 'unrecognized arguments: --evil'),
        ({'arguments': ['images', 'out', '--help']}, 'which cannot be given'),
        ({'arguments': ['images']}, 'the following arguments are required'),
        ({'arguments': ['images', 'out\0']}, 'zero byte'),
        ({'arguments': ['images', 'out\ud800']}, 'zero byte or an invalid character'),
        ({'folder': '/\ud800'}, 'zero byte or an invalid character'),
        *(
            ({'arguments': ['images', 'out', '--ray', address]}, '--ray can run code')
            for address in ('elsewhere:6379', 'local', 'auto')
        ),
        ({'folder': 'relative'}, 'is not a folder on this machine'),
        ({'folder': '/absent/folder'}, 'is not a folder on this machine'),
        (
            {'name': 'segment', 'arguments': ['i', 'out', '--checkpoint', 'c', '--config', 'evil.py']},
            '--config can run code',
        ),
        (
            {'name': 'segment', 'arguments': ['i', 'out', '--checkpoint', 'c', '--cfg-options', 'a=1']},
            '--cfg-options can run',
        ),
    ],
)
def test_a_manifest_cannot_run_anything_else(values, said, images, tmp_path, capsys, monkeypatch):
    out = tmp_path / 'out'
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'evil.py').write_text('raise SystemExit')
    assert degrade(images, 'out', '--shards', 2, '--shard', 0) == 0
    changed(out, 0, 2, **values)
    started = []
    monkeypatch.setattr('rass_mm.cli.retry.subprocess.Popen', lambda *a, **k: started.append(a))
    before = contents(tmp_path)
    assert main(['jobs', 'retry', str(out)]) == 1
    message = ' '.join(capsys.readouterr().err.split())
    assert said in message and 'yourself' in message and not started and contents(tmp_path) == before


def test_ctrl_c_lets_a_shard_end_by_itself(tmp_path, monkeypatch):
    slow = tmp_path / 'slow'
    slow.write_text(
        '#!/bin/sh\ntrap "sleep 1; touch ended; exit 130" INT\necho $$ > begun\nwhile :; do sleep 0.05; done\n'
    )
    slow.chmod(0o755)
    monkeypatch.setattr('rass_mm.cli.retry.sys.executable', str(slow))

    def interrupt():
        wait_for(lambda: lines_of(tmp_path / 'begun'), 60)
        for process in (int(lines_of(tmp_path / 'begun')[0]), os.getpid()):
            os.kill(process, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        retry._run(retry._Retry(0, 'restore', [], str(tmp_path)))
    thread.join()
    assert (tmp_path / 'ended').exists()


def test_the_oldest_python_has_the_options_of_the_interpreter():
    lowest = re.search(r"python_requires='>=3\.(\d+)'", (ROOT / 'setup.py').read_text())
    assert int(lowest[1]) >= 11  # -P


def test_shards_without_a_recorded_command_are_named(photos, out, capsys):
    restore_images(photos, out, 1, 3)
    assert main(['jobs', 'retry', str(out)]) == 1
    assert 'No manifest' in capsys.readouterr().err


def test_a_folder_without_shards_is_an_error(tmp_path, capsys):
    assert main(['jobs', 'retry', str(tmp_path / 'absent')]) == 1
    assert 'absent' in capsys.readouterr().err
