"""Several batches per update, compared with one large batch; everything counts updates."""

import contextlib
import functools

import pytest
import torch
from accumulated import trained
from mmengine.hooks import EMAHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from toy_training import Toy, toy_runner

from rass_mm.engine.finite import FiniteTrainingHook
from rass_mm.engine.loop import averaged, batches_per_update
from rass_mm.engine.schedule import ConfigScheduleHook
from rass_mm.errors import ConfigError, TrainingError

POLY = {'type': 'PolyLR', 'eta_min': 1e-4, 'power': 0.9, 'begin': 0, 'end': 8, 'by_epoch': False}


def toy(folder, updates=8, batch_size=6, hooks=(), seed=0, **options):
    torch.manual_seed(seed)
    settings = {'type': 'ResumableIterLoop', 'max_iters': updates}
    if 'global_batch_size' in options:
        settings['global_batch_size'] = options.pop('global_batch_size')
    model = options.pop('model', None) or Toy()
    hooks = [ConfigScheduleHook(), *hooks]
    runner, recorder = toy_runner(folder, settings, [dict(POLY)], hooks, model=model, batch_size=batch_size, **options)
    runner.train()
    return runner, recorder


def weights(runner):
    return torch.cat([value.detach().flatten() for value in runner.model.parameters()])


@pytest.mark.parametrize('batch_size', [1, 2, 3])
def test_small_batches_make_the_updates_of_the_large_one(tmp_path, batch_size):
    whole, large = toy(tmp_path / 'whole')
    parts, small = toy(tmp_path / 'parts', batch_size=batch_size, global_batch_size=6)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0, atol=1e-6)
    assert small.rates == large.rates and len(small.rates) == 8  # the schedule counts updates
    assert [batch[-batch_size:] for batch in large.batches] == small.batches
    assert parts.model.calls == 8 * 6 // batch_size
    assert {file.name for file in (tmp_path / 'parts').glob('*.pth')} == {'iter_3.pth', 'iter_6.pth', 'iter_8.pth'}


def test_a_global_batch_of_one_batch_changes_nothing(tmp_path):
    (whole, _), (same, _) = toy(tmp_path / 'whole'), toy(tmp_path / 'same', global_batch_size=6)
    assert torch.equal(weights(same), weights(whole)) and same.model.calls == 8


@pytest.mark.parametrize('at', [3, 6])
def test_a_run_resumes_in_the_middle(tmp_path, at):
    options = {'batch_size': 2, 'global_batch_size': 6}
    whole, all_ = toy(tmp_path / 'whole', **options)
    toy(tmp_path / 'cut', updates=at, **options)
    resumed, rest = toy(tmp_path / 'cut', resume=True, seed=5, **options)
    assert torch.equal(weights(resumed), weights(whole))
    assert rest.rates == all_.rates[at:] and rest.batches == all_.batches[at:]


def test_a_run_resumes_with_other_batches_of_the_same_global_size(tmp_path):
    whole, _ = toy(tmp_path / 'whole')
    toy(tmp_path / 'cut', updates=6, batch_size=2, global_batch_size=6)
    resumed, _ = toy(tmp_path / 'cut', resume=True, batch_size=3, global_batch_size=6)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=1e-6)


def test_averaged_weights_count_updates(tmp_path):
    averages = []
    for name, options in (('whole', {}), ('parts', {'batch_size': 2, 'global_batch_size': 6})):
        hook = EMAHook(momentum=0.1)
        toy(tmp_path / name, hooks=[hook], **options)
        averages.append(torch.cat([value.flatten() for value in hook.ema_model.module.parameters()]))
        assert int(hook.ema_model.steps) == 8
    torch.testing.assert_close(*averages, rtol=0, atol=1e-6)


def test_gradients_are_shared_between_processes_once_per_update(tmp_path):
    class Distributed(Toy):
        kept = 0

        @contextlib.contextmanager
        def no_sync(self):
            self.kept += 1
            yield

    runner, _ = toy(tmp_path, model=Distributed(), batch_size=2, global_batch_size=6)
    assert runner.model.kept == 8 * 2 and runner.model.calls == 8 * 3


class ScalingWrapper(AmpOptimWrapper):
    """Loss scaling of mixed precision, on the CPU and in float32."""

    optim_context = OptimWrapper.optim_context


def test_losses_are_scaled_as_in_mixed_precision(tmp_path, monkeypatch):
    place = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    monkeypatch.setattr(f'{place}.is_cuda_available', lambda: True)
    monkeypatch.setattr(f'{place}.GradScaler', functools.partial(torch.amp.GradScaler, 'cpu'))
    wrapper = {'type': ScalingWrapper, 'loss_scale': {'init_scale': 1024.0, 'growth_interval': 3}}
    wrapper['clip_grad'] = {'max_norm': 0.1}
    whole, _ = toy(tmp_path / 'whole', wrapper={'clip_grad': {'max_norm': 0.1}})
    parts, _ = toy(tmp_path / 'parts', batch_size=2, global_batch_size=6, wrapper=wrapper)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0, atol=1e-6)
    assert parts.optim_wrapper.loss_scaler.get_scale() == 4096  # it grows per update, not per batch


def test_a_loss_that_is_nan_in_one_batch_of_an_update_ends_the_run(tmp_path):
    model = Toy(lambda call: float('nan') if call == 5 else 1.0)
    with pytest.raises(TrainingError, match='iteration 2'):
        toy(tmp_path, model=model, batch_size=2, global_batch_size=6, hooks=[FiniteTrainingHook()])


def test_logged_values_are_means():
    found = averaged([{'loss': torch.tensor(1.0), 'acc': 2.0}, {'loss': torch.tensor(4.0), 'acc': 3.0, 'rare': 7}])
    assert found == {'loss': torch.tensor(2.5), 'acc': 2.5, 'rare': 7}


@pytest.mark.parametrize(('size', 'batch', 'processes', 'count'), [(16, 2, 8, 1), (16, 2, 1, 8), (16, 16, 1, 1)])
def test_number_of_batches(size, batch, processes, count):
    assert batches_per_update(size, batch, processes) == count


@pytest.mark.parametrize(
    ('size', 'batch', 'processes', 'said'),
    [
        (16, 3, 1, '16, which is not a multiple of 3: 3 images.*times 1 process. Set.*batch_size to 1 or 2'),
        (16, 2, 3, 'a multiple of 6: .*times 3 processes. Change the number of processes'),
        (8, 16, 1, r'batch_size to 1, 2, 4 or 8, or change'),
        (16, None, 1, 'batch sampler'),
    ],
)
def test_a_batch_that_does_not_divide_is_an_error(size, batch, processes, said):
    with pytest.raises(ConfigError, match=said):
        batches_per_update(size, batch, processes)


def test_it_is_not_combined_with_accumulative_counts(tmp_path):
    wrapper = lambda model: OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2)  # noqa: E731
    samples = [{'number': torch.tensor(1.0)}] * 4
    with pytest.raises(ConfigError, match='accumulative_counts=2'):
        trained(Toy(), wrapper, samples, tmp_path, 1, 2, 4)


def test_accumulative_counts_are_also_refused_if_one_batch_is_the_global_batch(tmp_path):
    with pytest.raises(ConfigError, match='accumulative_counts=2'):
        toy(tmp_path, global_batch_size=6, wrapper={'accumulative_counts': 2})


@pytest.mark.parametrize('options', [{}, {'global_batch_size': 4}])
def test_a_run_is_not_resumed_with_another_global_batch(tmp_path, options):
    toy(tmp_path, updates=3, batch_size=2, global_batch_size=6)
    with pytest.raises(ConfigError, match='with 6 images per update.*this run has [24]:.*global_batch_size=6'):
        toy(tmp_path, resume=True, batch_size=2, **options)
