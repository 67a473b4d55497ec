"""Smallest training that mmengine's runner does: a linear model on seven numbers."""

import itertools

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from rass_mm.engine.seeding import SeededSampler

SIZE = 7
NUMBER = itertools.count()


class Toy(BaseModel):
    """Linear model whose loss is `factor` times the squared output."""

    def __init__(self, factor=None):
        super().__init__()
        self.layer, self.head = nn.Linear(1, 2), nn.Linear(2, 1)
        self.factor = factor or (lambda iteration: 1.0)
        self.calls = 0

    def forward(self, number, mode):
        if mode == 'loss':
            self.calls += 1
            return {'loss_fit': self.factor(self.calls) * self.head(self.layer(number[:, None])).pow(2).mean()}
        return number


class Recorder(Hook):
    """Hook that records the learning rates and the samples of each iteration, before the scheduler's step."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.rates, self.batches = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        groups = runner.optim_wrapper.param_groups
        self.rates.append([(group['lr'], group['weight_decay']) for group in groups])
        self.batches.append(data_batch['number'].tolist())


class Numbers(torch.utils.data.Dataset):
    """Data set of the numbers 0 to SIZE - 1."""

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return {'number': torch.tensor(float(index))}


def toy_runner(
    folder,
    loop,
    scheduler,
    hooks,
    resume=False,
    model=None,
    lr=0.01,
    interval=3,
    by_epoch=False,
    decay=0,
    batch_size=2,
    wrapper=None,
):
    """Returns a runner with our hooks, and the recorder."""
    recorder, data = Recorder(), Numbers()
    sampler = SeededSampler(data, seed=1)
    loader = torch.utils.data.DataLoader(data, batch_size=batch_size, sampler=sampler)
    checkpoint = {'type': 'CheckpointHook', 'interval': interval, 'by_epoch': by_epoch}
    custom = {'head': {'lr_mult': 10.0}}
    runner = Runner(
        *(model or Toy(), str(folder)),
        train_dataloader=loader,
        train_cfg=loop,
        optim_wrapper={
            'optimizer': {'type': 'SGD', 'lr': lr, 'weight_decay': decay},
            'paramwise_cfg': {'custom_keys': custom},
            **(wrapper or {}),
        },
        param_scheduler=scheduler,
        default_hooks={'checkpoint': checkpoint},
        custom_hooks=[*hooks, recorder],
        resume=resume,
        experiment_name=f'toy{next(NUMBER)}',
        log_level='ERROR',
    )
    return runner, recorder
