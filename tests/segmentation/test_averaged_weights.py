"""Averaged models, frozen copies and exports have the trained tensors of the model that they were made from."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage, StochasticWeightAverage
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from torch.optim.swa_utils import AveragedModel

from rass_mm.engine.trained_state import tensors_of
from rass_mm.errors import CheckpointError

AVERAGES = {
    'ema': lambda model: ExponentialMovingAverage(model, momentum=0.5),
    'ema with buffers': lambda model: ExponentialMovingAverage(model, momentum=0.5, update_buffers=True),
    'swa': StochasticWeightAverage,
    'torch': AveragedModel,
}


def moved(model, amount):
    """Adds `amount` to every trained parameter, as an optimizer would."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(amount)


@pytest.mark.parametrize('name', ['upernet', 'fcn'])
@pytest.mark.parametrize('average', AVERAGES)
def test_averages_keep_the_mean_of_the_trained_tensors(build, name, average):
    model = build(name)
    averaged = AVERAGES[average](model)
    first = {key: value.clone() for key, value in tensors_of(model.state_dict()).items()}
    averaged.update_parameters(model)
    moved(model, 1.0)
    averaged.update_parameters(model)
    state = averaged.module.state_dict()
    assert state.keys() == model.state_dict().keys()
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    for key in trained:
        assert torch.allclose(state[key], first[key] + 0.5, atol=1e-5), key


@pytest.mark.parametrize('freeze', [lambda model: model.requires_grad_(False), lambda model: model.eval()])
def test_frozen_copies_save_and_load_the_same_tensors(build, freeze):
    model = build()
    frozen = freeze(copy.deepcopy(model))
    for read in (get_state_dict, lambda module: module.state_dict()):
        expected, found = read(model), read(frozen)
        assert all(torch.equal(value, found[key]) for key, value in expected.items()) and len(found) == len(expected)
    moved(model, 1.0)
    load_state_dict(frozen, model.state_dict(), strict=True)
    expected, found = model.state_dict(), frozen.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


def test_a_frozen_model_stays_strict(build):
    frozen = build().requires_grad_(False)
    state = frozen.state_dict()
    state.pop(next(key for key in state if 'lora_A' in key))
    with pytest.raises(CheckpointError, match='1 missing'):
        frozen.load_state_dict(state, strict=False)
    with pytest.raises(CheckpointError, match='unknown'):
        frozen.load_state_dict({**frozen.state_dict(), 'neck.other': torch.zeros(1)}, strict=False)


def test_training_what_was_frozen_is_an_error_before_anything_is_lost(build):
    model = build()
    model.backbone.extractor.unet.requires_grad_(True)
    with pytest.raises(CheckpointError, match='frozen parameters that require gradients now.*train_parameters'):
        model.state_dict()
