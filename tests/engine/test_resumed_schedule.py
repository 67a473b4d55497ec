"""Schedule of a resumed run, compared with a fresh run of the same config."""

import pytest
import torch
from toy_training import toy_runner

from rass_mm.engine.loop import _Skipping
from rass_mm.engine.schedule import ConfigScheduleHook
from rass_mm.errors import ConfigError

WARM = {'type': 'LinearLR', 'start_factor': 0.1, 'begin': 0, 'end': 3, 'by_epoch': False}


def poly(end, **others):
    return {'type': 'PolyLR', 'eta_min': 1e-4, 'power': 0.9, 'begin': 0, 'end': end, 'by_epoch': False, **others}


def iterations(count, kind='ResumableIterLoop'):
    return {'type': kind, 'max_iters': count}


def run(folder, loop, scheduler, **options):
    runner, recorder = toy_runner(folder, loop, scheduler, [ConfigScheduleHook()], **options)
    runner.train()
    return recorder


CHANGES = {
    'longer': (([poly(4)], {}), ([poly(9)], {})),
    'warm-up added': (([poly(4)], {}), ([WARM, poly(9, begin=3)], {})),
    'warm-up removed': (([WARM, poly(4, begin=3)], {}), ([poly(9)], {})),
    'other kind': (([poly(9)], {}), ([{'type': 'CosineAnnealingLR', 'T_max': 9, 'by_epoch': False}], {})),
    'schedule removed': (([poly(9)], {}), ([], {})),
    'schedule added': (([], {}), ([poly(9)], {})),
    'higher rate': (([poly(9)], {}), ([poly(9)], {'lr': 0.05})),
    'weight decay': (([poly(9)], {}), ([poly(9)], {'decay': 0.1})),
    'milestones': (
        ([{'type': 'MultiStepLR', 'milestones': [2, 5], 'by_epoch': False}], {}),
        ([{'type': 'MultiStepLR', 'milestones': [3, 6, 7], 'gamma': 0.5, 'by_epoch': False}], {}),
    ),
}


@pytest.mark.parametrize('change', CHANGES)
def test_a_resumed_run_has_the_rates_of_a_fresh_run_of_its_config(tmp_path, change, caplog):
    (old, first), (new, second) = CHANGES[change]
    run(tmp_path / 'cut', iterations(4), old, interval=4, **first)
    resumed = run(tmp_path / 'cut', iterations(9), new, resume=True, **second)
    fresh = run(tmp_path / 'fresh', iterations(9), new, **second)
    assert len(resumed.rates) == 5 and resumed.rates == fresh.rates[4:]
    assert resumed.batches == fresh.batches[4:]


def test_an_unchanged_config_resumes_with_the_stored_state(tmp_path, monkeypatch):
    monkeypatch.setattr('rass_mm.engine.schedule._replay', None)
    whole = run(tmp_path / 'whole', iterations(9), [WARM, poly(9, begin=3)])
    run(tmp_path / 'cut', iterations(6), [WARM, poly(9, begin=3)])
    resumed = run(tmp_path / 'cut', iterations(9), [WARM, poly(9, begin=3)], resume=True)
    assert resumed.rates == whole.rates[6:]


def test_epochs_resume_with_a_longer_schedule(tmp_path):
    def epochs(folder, count, **options):
        torch.manual_seed(0)  # with some weights, this training diverges
        loop = {'type': 'EpochBasedTrainLoop', 'max_epochs': count}
        schedule = [
            poly(count, by_epoch=True, convert_to_iter_based=True),
            {'type': 'StepLR', 'step_size': 1, 'gamma': 0.5, 'by_epoch': True, 'begin': 0, 'end': count},
        ]
        hooks = [ConfigScheduleHook(), dict(type='EpochSamplerHook')]
        runner, recorder = toy_runner(folder, loop, schedule, hooks, interval=1, by_epoch=True, **options)
        runner.train()
        return recorder

    epochs(tmp_path / 'cut', 2)
    resumed, fresh = epochs(tmp_path / 'cut', 4, resume=True), epochs(tmp_path / 'fresh', 4)
    assert len(fresh.rates) == 16 and resumed.rates == fresh.rates[8:]
    assert resumed.batches == fresh.batches[8:]


def test_a_checkpoint_beyond_the_end_is_refused(tmp_path):
    run(tmp_path, iterations(6), [poly(6)])
    with pytest.raises(ConfigError, match='iteration 6.*iteration 4.*max_iters'):
        run(tmp_path, iterations(4), [poly(4)], resume=True)


def test_a_finished_run_resumes_to_nothing(tmp_path):
    run(tmp_path, iterations(6), [poly(6)])
    assert run(tmp_path, iterations(6), [poly(6)], resume=True).rates == []


def test_batches_that_the_loop_of_the_forks_skips_are_not_skipped_again():
    batches = _Skipping(iter(['third', 'fourth']), 2)
    batches.skip_iter(2)
    assert [next(batches), next(batches)] == ['third', 'fourth']
    assert [next(batches) for batches in [_Skipping(iter(['third']), 2)] for _ in range(3)] == [None, None, 'third']
