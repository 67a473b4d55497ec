"""Two commands that write to one folder: the second one is refused, and its message names the first."""

import os

import pytest
from campaign import kills
from campaign.cases import TRACEBACK

from rass_mm.files.locks import held

LOCKS = {'robustness': ('out', '.curve.lock'), 'convert': ('out', '.a.safetensors.lock')}
UNLOCKED = ('make-base', 'check-data', 'demo')
"""Bases are made in the cache, where the second command waits; check-data writes one file, atomically."""

NAMES = [name for name, job in kills.JOBS.items() if name not in UNLOCKED and job.processes == 1]


QUICK = ('make-lq', 'restore', 'segment', 'make-scenes')


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_the_second_command_is_refused_and_names_the_first(name, kit, tmp_path):
    job, folder = kills.JOBS[name], tmp_path / 'job'
    kills.prepare(job, folder, kit)
    place, *lock = LOCKS.get(name, ('out',))
    with held(folder / place, *lock):
        before = sorted(folder.rglob('*'))
        _, wrong = kills.run_whole(job, folder, kit)
    assert wrong and 'status 1:' in wrong and TRACEBACK not in wrong
    text = kills.log_of(folder, False).read_text()
    assert f'out is in use by process {os.getpid()} on ' in text.replace('\n', ' '), text
    files = {path for path in folder.rglob('*') if path.is_file()}
    assert files <= set(before), 'the second command wrote files'
