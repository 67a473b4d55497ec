"""Long jobs of the kills: a job that fails without a kill is a fault, and the other jobs are still killed."""

import random

from campaign import kills


def test_a_job_that_fails_as_a_whole_is_a_fault_and_the_next_job_runs(tmp_path, monkeypatch):
    outcomes = iter(['status 1: no disk', None])
    monkeypatch.setattr(kills, 'LONG', ('restore', 'segment'))
    monkeypatch.setattr(kills, 'prepare', lambda *_: None)
    monkeypatch.setattr(kills, 'run_whole', lambda *_, **__: (1.0, next(outcomes)))
    for name in ('wait_for', 'start'):
        monkeypatch.setattr(kills, name, lambda *_, **__: 0)
    for name in ('stopped', 'resumed', 'compared'):
        monkeypatch.setattr(kills, name, lambda *_, **__: [])
    monkeypatch.setattr(kills, 'written', lambda folder: 10 if folder.name == 'many' else 5)
    failed, killed = kills.long_jobs(kills.JOBS, tmp_path, tmp_path, random.Random(0))
    assert failed['job'] == 'restore, 1000 images' and failed['faults'] == ['not killed: status 1: no disk']
    assert killed['job'] == 'segment, 1000 images' and killed['faults'] == [] and '50%' in killed['signal']
