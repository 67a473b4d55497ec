"""Preparation of configs for the current machine."""

import pytest
from mmengine.config import Config

from rass_mm import apis
from rass_mm.errors import ConfigError

PLAIN = {'type': 'OptimWrapper', 'optimizer': {'type': 'AdamW'}}
MIXED = {**PLAIN, 'type': 'AmpOptimWrapper', 'dtype': 'bfloat16', 'loss_scale': {'enabled': False}}


@pytest.fixture
def machine(monkeypatch):
    """machine(gpu, bf16) pretends to be one with or without a GPU that knows bfloat16."""

    def pretend(gpu, bf16=True):
        monkeypatch.setattr(apis, 'is_cuda_available', lambda: gpu)
        monkeypatch.setattr(apis, 'has_accelerator', lambda: gpu)
        monkeypatch.setattr(apis.torch.cuda, 'is_bf16_supported', lambda **_: bf16)

    return pretend


def test_full_precision_stays_unless_amp_is_asked_for(machine):
    machine(gpu=True)
    assert apis.fitted_precision(PLAIN) == PLAIN
    assert apis.fitted_precision(PLAIN, amp=True) == MIXED


def test_mixed_precision_needs_an_accelerator(machine):
    machine(gpu=False)
    assert apis.fitted_precision(MIXED) == PLAIN
    assert apis.fitted_precision(PLAIN, amp=True) == PLAIN


def test_card_without_bfloat16_takes_float16_with_scaling(machine):
    machine(gpu=True, bf16=False)
    assert apis.fitted_precision(MIXED) == {
        **PLAIN,
        'type': 'AmpOptimWrapper',
        'dtype': 'float16',
        'loss_scale': 'dynamic',
    }


def test_the_configs_own_precision_is_kept(machine):
    machine(gpu=True)
    own = {**PLAIN, 'type': 'AmpOptimWrapper', 'dtype': 'float16', 'loss_scale': 512.0}
    assert apis.fitted_precision(own, amp=True) == own


def test_tta_without_a_pipeline_is_refused():
    config = Config({'model': {}, 'test_dataloader': {}})
    with pytest.raises(ConfigError, match='tta_pipeline'):
        apis.use_tta(config)


@pytest.mark.parametrize('inside', [False, True])
def test_tta_keeps_the_logits_of_the_segmentor(inside):
    segmentor = {'type': 'RASS', 'test_cfg': {'mode': 'slide'}}
    model = {'type': 'RestoreThenSegment', 'segmentor': segmentor} if inside else segmentor
    data = {'tta_pipeline': [1], 'tta_model': {'type': 'SegTTAModel'}, 'test_dataloader': {'dataset': {}}}
    config = Config({'model': model, **data})
    apis.use_tta(config)
    kept = config.model.module
    assert config.test_dataloader.dataset.pipeline == [1] and ('test_cfg' in kept) != inside
    assert (kept.segmentor if inside else kept).test_cfg == {'mode': 'slide', 'keep_logits': True}
