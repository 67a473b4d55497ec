"""Trains a model on a few samples with one batch per update, or with several."""

import copy
import itertools

import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from rass_mm.engine.seeding import SeededSampler

NUMBER = itertools.count()


def trained(model, wrapper, samples, folder, updates, batch_size, global_batch_size=None, hooks=()):
    """Trains a copy of a model and returns its trained parameters, by name.

    Args:
        model: the model.
        wrapper: function of a model that returns its optimizer wrapper.
        samples: list of samples as from a data set.
        folder: the work folder.
        updates: number of updates.
        batch_size: number of samples per batch.
        global_batch_size: number of samples per update; None is one batch.
        hooks: hooks to add.
    """
    model = copy.deepcopy(model)

    class Samples(torch.utils.data.Dataset):
        def __len__(self):
            return len(samples)

        def __getitem__(self, index):
            return copy.deepcopy(samples[index])

    loader = torch.utils.data.DataLoader(
        Samples(), batch_size=batch_size, sampler=SeededSampler(Samples(), seed=1), collate_fn=pseudo_collate
    )
    runner = Runner(
        *(model, str(folder)),
        train_dataloader=loader,
        train_cfg={'type': 'ResumableIterLoop', 'max_iters': updates, 'global_batch_size': global_batch_size},
        optim_wrapper=wrapper(model),
        default_hooks={'checkpoint': None, 'logger': None},
        custom_hooks=[*hooks],
        default_scope='mmseg',
        randomness={'seed': 0},
        experiment_name=f'accumulated{next(NUMBER)}',
        log_level='ERROR',
    )
    runner.train()
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def distance(one, other):
    """Largest difference between two results of `trained`."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)
