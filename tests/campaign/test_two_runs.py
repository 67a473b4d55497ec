"""Two commands that write the same results: the second one is refused, and its message names the first."""

import os

import pytest
from campaign import kills
from campaign.cases import TRACEBACK
from campaign.kills import Job
from campaign.kit import data_options

from rass_mm.apis import TEST_LOCK
from rass_mm.files.locks import LOCK, held

CHECK_DATA = ('check-data',)
"""Jobs that write one file, atomically."""
DATA = ' '.join(data_options('$FX/data'))
TEST = f'test baselines/resnet_scenes_tiny.py $FX/resnet.pth --cfg-options {DATA} --work-dir'
MORE = {
    'test': Job(f'{TEST} out'),
    'test --out': Job(f'{TEST} work --out out'),
    'test --show-dir': Job(f'{TEST} work --show-dir out'),
    'benchmark': Job('benchmark baselines/resnet_scenes_tiny.py --out out'),
    'attention': Job('attention $FX/good.png --adapter $FX/adapter.safetensors --base $FX/base --out out'),
    'random-base': Job('random-base out --layout scenes-tiny --configs-only'),
    'robustness --plot': Job('robustness --plot $FX/curve.json --name curve --out out'),
}
JOBS = {name: job for name, job in kills.JOBS.items() if name not in CHECK_DATA and job.processes == 1} | MORE
LOCKS = {
    'test': ('out', TEST_LOCK, 'out'),
    'robustness': ('out', '.curve.lock', 'out'),
    'robustness --plot': ('out', '.curve.lock', 'out'),
    'convert': ('out', '.a.safetensors.lock', 'out/a.safetensors'),
    'make-base': ('.', '.out.lock', 'out'),
}
"""Job -> folder of its lock, name of the lock, and the path in the message."""
QUICK = ('make-lq', 'restore', 'segment', 'make-scenes', 'make-base', 'demo', *MORE)


@pytest.mark.parametrize('name', [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in JOBS])
def test_the_second_command_is_refused_and_names_the_first(name, kit, tmp_path):
    job, folder = JOBS[name], tmp_path / 'job'
    kills.prepare(job, folder, kit)
    place, lock, shown = LOCKS.get(name, ('out', LOCK, 'out'))
    with held(folder / place, lock):
        before = sorted(folder.rglob('*'))
        _, wrong = kills.run_whole(job, folder, kit)
    assert wrong and 'status 1:' in wrong and TRACEBACK not in wrong
    text = kills.log_of(folder, False).read_text()
    assert f'{shown} is in use by process {os.getpid()} on ' in text.replace('\n', ' '), text
    files = {path for path in folder.rglob('*') if path.is_file() and 'cache' not in path.parts}
    assert files <= set(before), 'the second command wrote files'


def test_a_checkpoint_is_tested_while_training_continues_in_the_same_folder(kit, tmp_path):
    job, folder = Job(f'{TEST} out'), tmp_path / 'job'
    kills.prepare(job, folder, kit)
    with held(folder / 'out'):
        assert kills.run_whole(job, folder, kit)[1] is None
    assert (folder / 'out' / 'metrics.json').is_file() and not list((folder / 'out').glob('.*'))


def test_maps_and_pictures_of_a_test_share_a_folder(kit, tmp_path):
    job, folder = Job(f'{TEST} work --out out --show-dir ./out'), tmp_path / 'job'
    kills.prepare(job, folder, kit)
    assert kills.run_whole(job, folder, kit)[1] is None
