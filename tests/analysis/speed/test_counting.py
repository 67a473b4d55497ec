"""Operations and parameters, compared with manual counts and with published sizes."""

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from rass_mm.analysis.speed.measure import counted, measure, passes
from rass_mm.analysis.speed.memory import RESET, PeakMemory
from rass_mm.analysis.speed.models import count_parameters
from rass_mm.analysis.speed.stages import StageMeter
from rass_mm.analysis.speed.variants import Variant
from rass_mm.config import load_config
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.segmentation.stages import segmentor_stages


class Attending(nn.Module):
    """Single-head self-attention without projections, followed by a linear layer over its 6 channels."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 4, bias=False)

    def forward(self, maps):
        tokens = maps.flatten(2).transpose(1, 2)[:, None]
        return self.out(nn.functional.scaled_dot_product_attention(tokens, tokens, tokens))


class Small(nn.Module):
    """Segmentor with the usual part names."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 6, 3, padding=1)
        self.decode_head = Attending()
        self.unused = nn.Linear(5, 5)
        self.backbone.requires_grad_(False)


class SmallJob:
    """Job with the interface that `measure` requires; records every pass in `calls`."""

    device, counts = torch.device('cpu'), True

    def __init__(self, name='', calls=None):
        self.model = Small()
        self.variant, self.calls = Variant(name, 'none.py'), [] if calls is None else calls

    def active(self):
        self.calls.append(self.variant.name)
        return torch.no_grad()

    def points(self):
        return segmentor_stages(self.model)

    def run(self):
        self.model.decode_head(self.model.backbone(torch.zeros(2, 3, 8, 10)))

    def parameter_counts(self, read):
        parameters = list(self.model.parameters())
        return {'all': count_parameters(parameters), 'read': count_parameters(p for p in parameters if id(p) in read)}


@pytest.mark.parametrize('attention', ['fused', 'explicit'])
def test_operations_of_a_small_model_equal_the_formula(attention):
    explicit = nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH)
    with explicit if attention == 'explicit' else nullcontext():
        operations, parameters = counted(SmallJob())
    batch, pixels = 2, 8 * 10
    assert operations['backbone'] == 2 * batch * pixels * 6 * 3 * 9
    # Scores and weighted values are 6 wide; the linear layer gives 4 of 6.
    assert operations['head'] == 2 * batch * (2 * pixels * pixels * 6 + pixels * 6 * 4)
    assert operations['other'] == 0
    assert parameters == {'all': 168 + 24 + 30, 'read': 168 + 24}


def test_jobs_run_in_turns():
    calls, ticks = [], []
    jobs = [SmallJob('A', calls), SmallJob('B', calls)]
    found = measure(jobs, iterations=3, warmup=2, advance=lambda: ticks.append(1))
    assert calls == ['A', 'B'] * (1 + 2 + 3 + 3)
    assert len(ticks) == len(calls) == passes(2, iterations=3, warmup=2)
    for measured in found:
        assert len(measured.seconds) == len(measured.stage_seconds) == 3
        assert all(list(seconds) == ['backbone', 'head', 'other'] for seconds in measured.stage_seconds)


@pytest.mark.skipif(not RESET.exists(), reason='peaks of resident memory are measured on Linux only')
def test_peak_memory_is_relative_to_the_level_before_the_pass():
    kept = torch.ones(2**25)  # 128 MiB allocated before the pass
    with PeakMemory(torch.device('cpu')) as memory:
        for _ in range(2):  # allocated one after the other, so the peak is one of them
            torch.ones(2**24).sum()
    assert 60 * 2**20 < memory.peak < 90 * 2**20 and kept.numel() == 2**25


@pytest.fixture(scope='module')
def full_size(tmp_path_factory):
    """ADE20K model at full size on the meta device."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    base = tmp_path_factory.mktemp('full') / 'base'
    write_random_base(base, 'sd21-base', weights=False)
    init_default_scope('mmseg')
    config = load_config('rass/rass_ade20k_lq.py', {'model.backbone.base': str(base)})
    with torch.device('meta'):
        return MODELS.build(config.model).eval()


def test_full_size_stages_have_the_expected_cost(full_size):
    """Stable Diffusion's encoder and UNet at 512x512: 1.12 and 0.80 TFLOP, the latter here with its LoRA."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    meter = StageMeter(counter.get_total_flops)
    with torch.no_grad(), counter, meter.watching(segmentor_stages(full_size)):
        full_size.extract_feat(torch.empty(1, 3, 512, 512, device='meta'))
    assert meter.amounts['encode'] / 1e12 == pytest.approx(1.12, rel=0.02)
    assert 0.80 < meter.amounts['UNet'] / 1e12 < 0.86
    assert meter.amounts['prompt'] == meter.amounts['head'] == meter.amounts['other'] == 0


def test_full_size_parameters_are_the_known_ones(full_size):
    unet, vae = full_size.backbone.extractor.unet, full_size.backbone.extractor.vae
    parts = Counter(lora=0)
    for name, parameter in unet.named_parameters():
        parts['lora' if 'lora_' in name else 'base'] += parameter.numel()
    assert parts['base'] == 865_910_724 and parts['lora'] == 4_044_176
    trained = count_parameters(p for p in full_size.parameters() if p.requires_grad)
    assert trained == 27_905_063
    encoder = count_parameters(vae.parameters())
    assert encoder == pytest.approx(34.2e6, rel=0.01)
    conv_in = 11_840  # trained, but part of the base
    assert count_parameters(full_size.parameters()) == 865_910_724 + encoder + trained - conv_in
