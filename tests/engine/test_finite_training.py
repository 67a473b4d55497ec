"""Training that diverges stops before its weights replace a checkpoint."""

import math

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook
from toy_training import Toy, toy_runner

from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.finite import FiniteTrainingHook, check_losses
from rass_mm.errors import TrainingError

LOOP = {'type': 'ResumableIterLoop', 'max_iters': 9}


def diverging(folder, factor, **options):
    runner, _ = toy_runner(folder, LOOP, None, [FiniteTrainingHook()], model=Toy(factor), **options)
    with pytest.raises(TrainingError) as caught:
        runner.train()
    return str(caught.value)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_the_error_names_iteration_loss_and_last_checkpoint(tmp_path, value):
    message = diverging(tmp_path, lambda call: value if call == 5 else 1.0)
    assert 'iteration 5' in message and 'loss_fit' in message and str(tmp_path / 'iter_3.pth') in message
    assert 'learning rate' in message and not (tmp_path / 'iter_6.pth').exists()


def test_without_a_checkpoint_the_error_says_so(tmp_path):
    assert 'No checkpoint' in diverging(tmp_path, lambda call: math.nan)


def test_weights_that_overflow_with_a_finite_loss_are_not_saved(tmp_path):
    class Bad(Toy):
        def train_step(self, data, optim_wrapper):
            losses = super().train_step(data, optim_wrapper)
            if self.calls == 6:
                self.layer.weight.data.fill_(math.inf)
            return losses

    runner, _ = toy_runner(tmp_path, LOOP, None, [FiniteTrainingHook()], model=Bad())
    with pytest.raises(TrainingError, match=r'iteration 6: 1 of 4 tensors.*layer.weight.*iter_3.pth'):
        runner.train()
    assert (tmp_path / 'iter_3.pth').is_file() and not (tmp_path / 'iter_6.pth').exists()


class Scores(BaseMetric):
    """Metric with given values, one per validation."""

    values = ()

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {'mIoU': Scores.values.pop(0)}


def test_a_metric_that_is_nan_is_never_the_best(tmp_path, monkeypatch):
    Scores.values = [math.nan, 0.2, math.nan]
    runner, _ = toy_runner(tmp_path, {**LOOP, 'val_interval': 3}, None, [FiniteTrainingHook()])
    loader = torch.utils.data.DataLoader(range(2), collate_fn=lambda items: {'number': torch.tensor(items)})
    runner._val_loop, runner._val_dataloader, runner._val_evaluator = {'type': 'ValLoop'}, loader, Evaluator([Scores()])
    hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    hook.__init__(interval=3, by_epoch=False, save_best='mIoU', rule='greater')
    runner.train()
    assert [file.name for file in tmp_path.glob('best*')] == ['best_mIoU_iter_6.pth']
    assert all(value.isfinite().all() for value in load_local(tmp_path / 'best_mIoU_iter_6.pth')['state_dict'].values())


def test_only_losses_of_one_number_are_checked():
    check_losses({'loss': 1.0, 'loss_map': torch.tensor([math.nan, 1.0]), 'name': 'x'})
    with pytest.raises(TrainingError, match='loss_b nan'):
        check_losses({'loss_a': torch.tensor(1.0), 'loss_b': torch.tensor(math.nan)})
