"""The three commands in one process, in four shards and with torchrun; `jobs`; scripts; wrong options."""

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import ROOT, run, server, warm
from launched import PORTS, torchrun
from PIL import Image
from sharded import COMMANDS, command_on, contents, write_images

from rass_mm.cli.shards import card_of_process
from rass_mm.files.manifest import MANIFEST
from rass_mm.jobs.shard import Shard
from rass_mm_cli.main import main

VARIABLES = ('SLURM_ARRAY_TASK_ID', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'JOB_COMPLETION_INDEX')


@pytest.fixture
def unlaunched(monkeypatch):
    """The environment of a process that no launcher started."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize('command', COMMANDS)
def test_four_shards_make_the_folder_of_one_process(command, kit, tmp_path, capsys):
    out = tmp_path / 'out'
    for number in (3, 1, 0, 2):
        assert command_on(kit, command, out, '--shards', 4, '--shard', number) == 0
    assert not (out / MANIFEST).exists() and not (out / 'shares.csv').exists()
    assert main(['jobs', 'status', str(out)]) == 0
    assert f'All shards are done. Merge them: rass-mm jobs merge {out}' in capsys.readouterr().out
    assert main(['jobs', 'merge', str(out)]) == 0
    assert contents(out) == contents(kit.one[command])
    assert 'the manifest has 9 images' in capsys.readouterr().out
    assert command_on(kit, command, out) == 0
    assert re.search(r'0 of 9 images|9 images .*\(0 made now', capsys.readouterr().out)
    assert contents(out) == contents(kit.one[command])


@pytest.mark.parametrize('command', COMMANDS)
def test_two_processes_of_torchrun_make_the_folder_of_one_process(command, kit, tmp_path):
    out, script = tmp_path / 'out', command if command == 'make-lq' else f'dist_{command}.sh'
    done = torchrun(script, kit.images, out, *kit.options[command])
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(f'Shard {number} of 2 (the first is 0), from RANK' in done.stderr for number in (0, 1))
    assert main(['jobs', 'merge', str(out)]) == 0
    assert contents(out) == contents(kit.one[command])


def half_damaged(folder, count):
    """Writes images, of which those of shard 0 are damaged and the others are large; returns the number of each."""
    damaged = 0
    for path in sorted(write_images(folder, 40).rglob('*.png')):
        if Shard(0, count).has(path.relative_to(folder).as_posix()):
            path.write_bytes(b'\x89PNG')  # this process ends at once
            damaged += 1
        else:
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)).save(path)
    return damaged


def test_a_damaged_image_does_not_stop_the_other_process(kit, tmp_path):
    images, out, shards = tmp_path / 'images', tmp_path / 'out', [Shard(0, 2), Shard(1, 2)]
    damaged = half_damaged(images, 2)
    done = torchrun('dist_restore.sh', images, out, *kit.options['restore'])
    assert done.returncode != 0 and f'{damaged} of {damaged} images cannot be restored' in done.stderr
    first, second = (out / shard.mark for shard in shards)
    assert second.exists() and len((out / shards[1].manifest).read_text().splitlines()) - 1 == 40 - damaged
    assert second.stat().st_mtime - first.stat().st_mtime > 1  # longer than torchrun needs to notice a failure


@pytest.mark.slow
def test_an_error_of_another_machine_does_not_hold_a_failed_process(kit, tmp_path):
    images, out, damaged = tmp_path / 'images', tmp_path / 'out', half_damaged(tmp_path / 'images', 4)
    shim, port = server().with_name('python'), next(PORTS)
    options = [list(map(str, kit.options['restore'])) for _ in range(2)]
    options[1][options[1].index('--adapter') + 1] = str(tmp_path / 'absent.safetensors')  # fails before it has a shard

    def machine(number):
        env = {'PYTHON': str(shim), 'WARM_EXECUTABLE': str(shim), 'PORT': str(port)}
        env |= {'NNODES': '2', 'NODE_RANK': str(number)}
        return run('bash', ROOT / 'tools' / 'dist_restore.sh', 2, images, out, *options[number], env=env, timeout=300)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(machine, range(2))
    assert 'absent.safetensors' in second.stderr and second.returncode != 0
    assert first.returncode != 0 and f'{damaged} of {damaged} images cannot be restored' in first.stderr
    assert (out / Shard(0, 4).mark).exists() and (out / Shard(1, 4).mark).exists()


KILLED = """
import os, signal, sys
from rass_mm.inference import manifest
from rass_mm_cli.main import main

calls = 0
append_line = manifest.append_line

def killing(*arguments):
    global calls
    calls += 1
    if calls == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    append_line(*arguments)

manifest.append_line = killing
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize('command', ['segment', 'restore'])
def test_a_killed_shard_resumes(command, kit, tmp_path, capsys):
    out, script = tmp_path / 'out', tmp_path / 'killed.py'
    script.write_text(KILLED)
    shard = ('--shards', '2', '--shard', '1')
    done = warm(script, command, kit.images, out, *kit.options[command], *shard)
    assert done.returncode == -9, done.stderr[-3000:]
    assert command_on(kit, command, out, '--shards', 2, '--shard', 0) == 0
    capsys.readouterr()
    assert main(['jobs', 'status', str(out), '--json']) == 0
    state = json.loads(capsys.readouterr().out)
    assert [found['state'] for found in state['states']] == ['done', 'incomplete'] and not state['complete']
    assert state['states'][1]['done'] == 1 and state['states'][1]['process'] is None
    assert main(['jobs', 'merge', str(out)]) == 1 and 'incomplete: shards 1 (of 2): give' in capsys.readouterr().err
    assert command_on(kit, command, out, *shard) == 0
    assert main(['jobs', 'merge', str(out)]) == 0
    assert contents(out) == contents(kit.one[command])


def test_a_wrong_base_does_not_block_the_right_one(kit, tmp_path, capsys):
    out, options = tmp_path / 'out', list(map(str, kit.options['restore']))
    wrong = shutil.copytree(options[options.index('--base') + 1], tmp_path / 'base')
    weights = next((wrong / 'unet').glob('*.safetensors'))
    weights.write_bytes(weights.read_bytes()[:1000])
    shard = ('--shards', '2', '--shard')
    assert main(['restore', str(kit.images), str(out), *options, '--base', str(wrong), *shard, '0']) == 1
    assert weights.name in capsys.readouterr().err
    for number in '10':
        assert command_on(kit, 'restore', out, *shard, number) == 0
    assert main(['jobs', 'merge', str(out)]) == 0
    assert contents(out) == contents(kit.one['restore'])


def test_status_names_failed_images_and_shards_that_never_ran(kit, tmp_path, capsys):
    images, out = shutil.copytree(kit.images, tmp_path / 'images'), tmp_path / 'out'
    (images / '0' / '0.png').write_bytes(b'\x89PNG')
    number = next(number for number in range(3) if Shard(number, 3).has('0/0.png'))
    given = ['make-lq', str(images), str(out), '--workers', '1', '--shards', '3', '--shard', str(number)]
    assert main(given) == 1
    capsys.readouterr()
    assert main(['jobs', 'status', str(out)]) == 0
    shown = capsys.readouterr().out
    others = ', '.join(str(other) for other in range(3) if other != number)
    assert 'of 9 images done, 1 failed, 3 shards' in shown and shown.count(' 0/0.png: ') == 1
    assert re.search(rf'never ran: 2 \(shards {others.replace(", ", "(, |-)")}\)', shown)
    assert f'shard {number}: incomplete, ' in shown and 'Not complete:' in shown
    assert main(['jobs', 'status', str(out), '--json']) == 0
    state = json.loads(capsys.readouterr().out)
    assert (state['shards'], state['images'], state['failed']) == (3, 9, 1)
    assert list(state['states'][number]['failed']) == ['0/0.png']
    assert main(['jobs', 'merge', str(out)]) == 1
    assert 'failed in shard' in capsys.readouterr().err


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--shard', '1'], '--shard 1 needs the number of shards. Set --shards N'),
        (['--shards', '4'], 'Set --shard I, from 0 to 3'),
        (['--shards', '4', '--shard', '4'], 'There is no shard 4 of 4'),
        (['--shards', 'auto', '--shard', '1'], 'Remove --shard 1'),
        (['--shards', 'auto'], 'none of the environment variables SLURM_ARRAY_TASK_ID, RANK'),
    ],
)
def test_wrong_pairs_of_options_are_refused_before_anything_is_written(
    command, options, said, kit, tmp_path, capsys, unlaunched
):
    assert command_on(kit, command, tmp_path / 'out', *options) == 1
    assert said in ' '.join(capsys.readouterr().err.split()) and not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--shards', '0', '--shard', '0'], "'0' is not an integer from 1 to 100000, and not auto"),
        (['--shards', 'all'], "'all' is not an integer from 1 to 100000, and not auto"),
        (['--shards', '4', '--shard', '-1'], "'-1' is not an integer from 0"),
    ],
)
def test_wrong_values_are_usage_errors(options, said, kit, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command_on(kit, 'make-lq', tmp_path / 'out', *options)
    assert ended.value.code == 2 and said in ' '.join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ('shards', 'device', 'environment', 'expected'),
    [
        ('auto', None, {'RANK': '5', 'LOCAL_RANK': '1'}, 'cuda:1'),
        ('auto', 'cpu', {'RANK': '5', 'LOCAL_RANK': '1'}, 'cpu'),
        ('auto', None, {'SLURM_ARRAY_TASK_ID': '1'}, None),
        (4, None, {'RANK': '5', 'LOCAL_RANK': '1'}, None),
        (None, None, {'RANK': '5', 'LOCAL_RANK': '1'}, None),
    ],
)
def test_a_process_of_torchrun_gets_the_card_of_its_local_number(shards, device, environment, expected, unlaunched):
    unlaunched.setattr('torch.cuda.is_available', lambda: True)
    for name, value in environment.items():
        unlaunched.setenv(name, value)
    assert card_of_process(SimpleNamespace(shards=shards, device=device)) == expected


def test_a_sheet_of_a_shard_is_refused(kit, tmp_path, capsys):
    given = ['--shards', 2, '--shard', 0, '--sheet', tmp_path / 'sheet.png']
    assert command_on(kit, 'restore', tmp_path / 'out', *given) == 1
    assert '--sheet shows all images' in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_an_array_from_one_says_how_to_submit_it(kit, tmp_path, capsys, unlaunched):
    for name, value in {'ID': 1, 'COUNT': 8, 'MIN': 1, 'MAX': 8, 'STEP': 1}.items():
        unlaunched.setenv(f'SLURM_ARRAY_TASK_{name}', str(value))
    assert command_on(kit, 'make-lq', tmp_path / 'out', '--shards', 'auto') == 1
    assert '--array=0-7' in capsys.readouterr().err


def test_the_array_script_runs_the_shard_of_its_task(kit, tmp_path):
    out, shim = tmp_path / 'out', server().with_name('python')
    for number in range(2):
        values = {'ID': number, 'COUNT': 2, 'MIN': 0, 'MAX': 1, 'STEP': 1}
        env = {'PYTHON': str(shim), **{f'SLURM_ARRAY_TASK_{name}': str(value) for name, value in values.items()}}
        given = ('make-lq', kit.images, out, *kit.options['make-lq'])
        done = run('bash', ROOT / 'tools' / 'slurm_array.sh', *given, env=env)
        assert done.returncode == 0 and f'Shard {number} of 2 (the first is 0), from SLURM_ARRAY' in done.stderr
    assert main(['jobs', 'merge', str(out)]) == 0
    assert contents(out) == contents(kit.one['make-lq'])


@pytest.mark.parametrize(
    ('script', 'given', 'expected'),
    [
        ('slurm_train.sh', ['gpu', 'a/b.py', '--amp'], ['b.py', '--launcher', 'slurm', '--amp']),
        ('slurm_test.sh', ['gpu', 'a/b.py', 'c.pth', '--tta'], ['b.py', 'c.pth', '--launcher', 'slurm', '--tta']),
    ],
)
def test_slurm_scripts_start_a_task_for_each_gpu(script, given, expected, tmp_path):
    (tmp_path / 'srun').write_text('#!/bin/sh\nprintf "%s\\n" "$@" port=$MASTER_PORT\n')
    (tmp_path / 'srun').chmod(0o755)
    env = {'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}', 'GPUS': '16', 'PORT': '1234', 'SRUN_ARGS': '-t 60 -v'}
    done = run('bash', ROOT / 'tools' / script, *given, env={**env, 'PYTHON': 'py'})
    words = done.stdout.splitlines()
    assert done.returncode == 0 and words[-1] == 'port=1234'
    options = dict(zip(words, words[1:], strict=False))
    assert (options['--partition'], options['--ntasks'], options['--ntasks-per-node']) == ('gpu', '16', '8')
    assert options['--gres'] == 'gpu:8' and options['-t'] == '60' and options['py'] == '-u'
    program = Path(options['-u'])
    assert program.samefile(ROOT / 'tools' / script.removeprefix('slurm_').replace('.sh', '.py'))
    assert [Path(word).name for word in words[words.index('-u') + 2 : -1]] == expected
