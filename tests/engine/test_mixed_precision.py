"""Mixed precision on machines with and without a GPU."""

import pytest

from rass_mm.engine import mixed_precision

PLAIN = {'type': 'OptimWrapper', 'optimizer': {'type': 'AdamW'}}
MIXED = {**PLAIN, 'type': 'AmpOptimWrapper', 'dtype': 'bfloat16', 'loss_scale': {'enabled': False}}


@pytest.fixture
def machine(monkeypatch):
    """machine(gpu, bf16) pretends to be one with or without a GPU that knows bfloat16."""

    def pretend(gpu, bf16=True):
        monkeypatch.setattr(mixed_precision, 'is_cuda_available', lambda: gpu)
        monkeypatch.setattr(mixed_precision, 'has_accelerator', lambda: gpu)
        monkeypatch.setattr(mixed_precision.torch.cuda, 'is_bf16_supported', lambda **_: bf16)

    return pretend


def test_full_precision_stays_unless_amp_is_asked_for(machine):
    machine(gpu=True)
    assert mixed_precision.fitted_precision(PLAIN) == PLAIN
    assert mixed_precision.fitted_precision(PLAIN, amp=True) == MIXED


def test_mixed_precision_needs_an_accelerator(machine):
    machine(gpu=False)
    assert mixed_precision.fitted_precision(MIXED) == PLAIN
    assert mixed_precision.fitted_precision(PLAIN, amp=True) == PLAIN


def test_card_without_bfloat16_takes_float16_with_scaling(machine):
    machine(gpu=True, bf16=False)
    assert mixed_precision.fitted_precision(MIXED) == {
        **PLAIN,
        'type': 'AmpOptimWrapper',
        'dtype': 'float16',
        'loss_scale': 'dynamic',
    }


def test_the_configs_own_precision_is_kept(machine):
    machine(gpu=True)
    own = {**PLAIN, 'type': 'AmpOptimWrapper', 'dtype': 'float16', 'loss_scale': 512.0}
    assert mixed_precision.fitted_precision(own, amp=True) == own
