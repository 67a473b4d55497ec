"""Checks of whether a checkpoint fits the model of a test, and a decode head its inputs."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmseg.registry import MODELS
from torch import nn

from rass_mm.engine.trained_state import pack_provenance
from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.inference.loading import load_weights
from rass_mm.segmentation.fitting import FittingCheckpointHook, check_averages, check_model, surplus_tensors
from rass_mm.segmentation.head_inputs import explained_inputs, input_fault
from rass_mm.segmentation.rows import head_rows

EXTRA = {'auxiliary_head.conv.weight': torch.ones(3), 'ema.weight': torch.ones(3)}


class Testing:
    """The part of a runner in a test that the hook reads."""

    _load_from, _resume, optim_wrapper, hooks = 'a.pth', False, None, ()

    def __init__(self, model, resume=False):
        self.model, self._resume = model, resume


def after_loading(model, content, **options):
    FittingCheckpointHook().after_load_checkpoint(Testing(model, **options), content)
    return content


@pytest.fixture
def warnings(monkeypatch):
    """List to which the warnings of the checks are written."""
    said = []
    monkeypatch.setattr('rass_mm.segmentation.fitting.print_log', lambda text, *_: said.append(text))
    return said


@pytest.fixture
def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def small(**settings):
    """Returns a small segmentor whose head has other settings."""
    head = {'type': 'FCNHead', 'in_channels': 32, 'in_index': 0, 'channels': 4, 'num_classes': 2, 'num_convs': 1}
    backbone = {'type': 'ResNet', 'depth': 18, 'num_stages': 1, 'strides': (1,), 'dilations': (1,)}
    backbone |= {'out_indices': (0,), 'base_channels': 32}
    return MODELS.build(ConfigDict(type='EncoderDecoder', backbone=backbone, decode_head={**head, **settings}))


@pytest.mark.parametrize('nested', [True, False])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_averages_start_with_the_loaded_weights(plain, nested, prefix):
    hook, runner = EMAHook(), Testing(plain)
    runner.hooks = [hook]
    hook.before_run(runner)
    state = {prefix + name: torch.full_like(value, 3) for name, value in plain.state_dict().items()}
    content = {'state_dict': state} if nested else state
    for one in (FittingCheckpointHook(), hook):
        one.after_load_checkpoint(runner, content)
    averages = hook.ema_model.module.state_dict()
    assert averages.keys() == plain.state_dict().keys() and all((value == 3).all() for value in averages.values())


@pytest.mark.parametrize('nested', [True, False])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_further_tensors_of_a_test_are_named_and_dropped(plain, warnings, nested, prefix):
    state = {prefix + name: value for name, value in {**plain.state_dict(), **EXTRA}.items()}
    found = after_loading(plain, {'state_dict': state} if nested else state)
    assert len(warnings) == 1 and 'a.pth has 2 tensors that the model has no place for' in warnings[0]
    assert f'{prefix}auxiliary_head.conv.weight, {prefix}ema.weight' in warnings[0]
    assert {name.removeprefix(prefix) for name in found.get('state_dict', found)} == plain.state_dict().keys()


def test_missing_tensors_of_a_test_and_further_ones_of_a_resumed_run_are_errors(plain):
    state = plain.state_dict()
    with pytest.raises(CheckpointError, match='1 missing: 0.bias'):
        after_loading(plain, {'state_dict': {key: value for key, value in state.items() if key != '0.bias'} | EXTRA})
    with pytest.raises(CheckpointError, match='2 unknown: auxiliary_head'):
        after_loading(plain, {'state_dict': {**state, **EXTRA}}, resume=True)
    with pytest.raises(CheckpointError, match='a.pth has no state_dict. Its tensors are in params_ema'):
        after_loading(plain, {'params_ema': state})


def test_only_an_auxiliary_head_is_dropped_from_the_checkpoint_of_a_diffusion_model(build):
    model = build()
    state = {**model.state_dict(), **EXTRA, 'backbone.extractor.unet.further': torch.ones(3)}
    assert surplus_tensors(model, state) == ['auxiliary_head.conv.weight']


def test_segmentation_loads_a_checkpoint_with_further_tensors(warnings, tmp_path):
    model = small()
    load_weights(model, {'state_dict': {**model.state_dict(), **EXTRA}}, tmp_path / 'a.pth')
    assert len(warnings) == 1 and 'has 2 tensors that the model has no place for' in warnings[0]


def test_extra_state_of_another_package_is_not_taken_for_a_record(plain):
    for value in ('text', {'scale': 2}, torch.ones(3), torch.zeros(4, dtype=torch.uint8)):
        check_model(plain, {**plain.state_dict(), '_extra_state': value}, 'a.pth', whole=True)
    record = pack_provenance({'base': {'config': 'a', 'weights': 'b'}, 'merged_adapters': [], 'classes': ['sky']})
    with pytest.raises(CheckpointError, match='a.pth is the checkpoint of a diffusion model'):
        check_model(plain, {**plain.state_dict(), '_extra_state': record}, 'a.pth', whole=True)


NAN = torch.full((4,), float('nan'))


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'module.0.bias': NAN}, r'module\.0\.bias contains NaN'),
        ({'module.other': torch.ones(3)}, r'1 unknown: module\.other'),
        ({'module.0.bias': torch.ones(3)}, r'module\.0\.bias \(3,\) instead of \(4,\)'),
        ({'steps': 3}, 'steps is a int'),
        ({0: torch.ones(3)}, 'the key 0'),
        (None, 'is a NoneType'),
    ],
)
def test_averages_that_would_become_weights_are_checked(plain, change, said):
    average = ExponentialMovingAverage(plain).state_dict()
    content = {'state_dict': plain.state_dict(), 'ema_state_dict': average}
    check_averages(content, 'a.pth')
    with pytest.raises(CheckpointError, match=rf'(?s)a\.pth, entry ema_state_dict.*{said}'):
        check_averages({**content, 'ema_state_dict': change and {**average, **change}}, 'a.pth')


def test_averages_may_be_partial_if_they_are_loaded_so(plain):
    content = {'state_dict': plain.state_dict(), 'ema_state_dict': {'module.0.bias': torch.ones(4)}}
    check_averages(content, 'a.pth', strict=False)
    with pytest.raises(CheckpointError, match='missing'):
        check_averages(content, 'a.pth')


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        ({'in_index': 4}, 'in_index is 4, but the backbone and the neck return 1 features'),
        ({'in_channels': 16}, r'in_channels is 16(.|\n)*have \[32\] channels'),
    ],
)
def test_inputs_that_a_head_cannot_use_are_named(settings, said):
    model = small(**settings)
    metas = [{'img_shape': (32, 32)}]
    for run in (
        lambda: model.encode_decode(torch.zeros(1, 3, 32, 32), metas),
        lambda: head_rows(model.decode_head, model.extract_feat(torch.zeros(1, 3, 32, 32)), metas, (32, 32), {}),
    ):
        with pytest.raises(ConfigError, match=said):
            run()


def test_other_errors_of_a_head_are_not_changed():
    model = small(in_channels=16)
    with pytest.raises(RuntimeError, match='user'), explained_inputs(model.decode_head, [torch.zeros(1, 32, 8, 8)]):
        raise RuntimeError('code of the user')
    assert input_fault(small().decode_head, [torch.zeros(1, 32, 8, 8)]) is None
