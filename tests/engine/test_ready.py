"""Models that are prepared for prediction, compared with the same models as they were trained."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import rass_mm
from rass_mm import devices
from rass_mm.devices import cpu_has_bfloat16, default_dtype
from rass_mm.diffusion.prepared import attend
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.engine.packing import can_pack
from rass_mm.engine.prepared_test import PreparedTestHook, used_preparation
from rass_mm.engine.ready import Preparation, chosen_preparation, is_changed, prepare, sharing_copy
from rass_mm.errors import CheckpointError, ConfigError

WAYS = {
    'as chosen': Preparation(),
    'not packed': Preparation(pack=False),
    'plain layout': Preparation(channels_last=False, pack=False),
}


@pytest.fixture(scope='module')
def rass(tiny_base):
    """RASS model on the tiny base with a LoRA that changes the output."""
    init_default_scope('mmseg')
    config = Config.fromfile(str(rass_mm.config_path('rass/rass_scenes_tiny.py')))
    config.merge_from_dict({'model.backbone.base': str(tiny_base), 'model.test_cfg.keep_logits': True})
    torch.manual_seed(0)
    model = MODELS.build(config.model).eval()
    for name, parameter in model.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope='module')
def images():
    """Two RGB images in [-1, 1]."""
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1


def logits(model, images):
    return model.predict(images)[0].seg_logits.data


@pytest.mark.parametrize('how', WAYS.values(), ids=WAYS)
def test_logits_stay_the_same(rass, images, how):
    expected = logits(rass, images)
    ready = prepare(sharing_copy(rass), how)
    found = logits(ready, images)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert torch.equal(logits(rass, images), expected)  # the copy shares tensors with the model, which are unchanged
    names = [name for name, _ in ready.named_parameters()]
    assert not any(part in name for name in names for part in ('lora_', 'unet.conv_out', 'time_emb', 'auxiliary'))


def test_half_precision_is_close_and_returns_float32(rass, images):
    expected, found = logits(rass, images), logits(prepare(sharing_copy(rass), Preparation('bfloat16')), images)
    assert found.dtype is torch.float32
    assert (found - expected).abs().mean() <= 0.02 * expected.abs().max()
    assert (found.argmax(0) == expected.argmax(0)).float().mean() > 0.95


def test_windows_and_other_contexts_are_computed_as_before(rass, images):
    ready = prepare(sharing_copy(rass))
    for model in (rass, ready):
        model.test_cfg.update(mode='slide', crop_size=(64, 64), stride=(32, 32), window_batch=2)
    try:
        torch.testing.assert_close(logits(ready, images), logits(rass, images), rtol=0, atol=1e-3)
    finally:
        rass.test_cfg.mode = 'whole'
    context = torch.randn(2, 7, rass.prompt.tokens.shape[1])
    with torch.no_grad():
        pairs = zip(ready.backbone(images, context), rass.backbone(images, context), strict=True)
        assert all((found - expected).abs().max() <= 1e-4 * expected.abs().max() for found, expected in pairs)
        own, other = ready.backbone(images)[-1], ready.backbone(images, context)[-1]
    assert (own - other).abs().max() > 1e-3


def test_the_timestep_is_part_of_the_weights(rass, images):
    early, late = sharing_copy(rass), sharing_copy(rass)
    late.backbone.extractor.timestep = 900
    expected = [model.backbone(images)[-1] for model in (early, late)]
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    for model, features in zip((early, late), expected, strict=True):
        with torch.no_grad():
            found = prepare(model).backbone(images)[-1]
        assert (found - features).abs().max() <= 1e-4 * features.abs().max()


def test_a_prepared_model_has_no_checkpoint(rass):
    state, ready = rass.state_dict(), prepare(sharing_copy(rass))
    for load in (ready.load_state_dict, lambda given: ready.backbone.load_state_dict(given, strict=False)):
        with pytest.raises(CheckpointError, match='no checkpoint can be loaded into it. Build the model again'):
            load(state)
    with pytest.raises(CheckpointError, match='Save the state dict before'):
        ready.state_dict()
    with pytest.raises(ConfigError, match='already prepared'):
        prepare(ready)


def test_a_restorer_stays_the_same(adapter, tiny_base, images):
    expected = load_restorer(adapter, tiny_base)(images)
    found = prepare(load_restorer(adapter, tiny_base))(images)
    assert (found - expected).abs().max() <= 1e-4
    half = prepare(load_restorer(adapter, tiny_base), Preparation('bfloat16'))(images)
    assert half.dtype is torch.float32 and (half - expected).abs().mean() <= 0.02


def test_a_plain_segmentor_is_not_changed():
    init_default_scope('mmseg')
    config = Config.fromfile(str(rass_mm.config_path('baselines/resnet_scenes_tiny.py')))
    torch.manual_seed(0)
    model, images = MODELS.build(config.model).eval(), torch.randn(1, 3, 64, 64)
    before, expected = dict(model.named_parameters()), logits(model, images)
    assert torch.equal(logits(prepare(sharing_copy(model)), images), expected)
    half = prepare(sharing_copy(model), Preparation('bfloat16'))
    assert 0 < (logits(half, images) - expected).abs().max() <= 0.1 * expected.abs().max()
    assert all(parameter.dtype is torch.float32 for parameter in half.parameters())
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_a_compiled_plain_model_is_another_one():
    plain = torch.nn.Linear(2, 2)
    assert is_changed(plain, Preparation(compile=True)) and not is_changed(plain, Preparation())


def test_a_test_uses_a_prepared_copy_and_puts_the_model_back(rass, images):
    hook = PreparedTestHook(Preparation())
    runner = SimpleNamespace(model=rass, hooks=[hook])
    hook.before_test_epoch(runner)
    assert runner.model is not rass and runner.model.prepared_as.dtype == 'float32'
    torch.testing.assert_close(logits(runner.model, images), logits(rass, images), rtol=0, atol=1e-3)
    hook.after_test_epoch(runner)
    assert runner.model is rass and rass.state_dict()
    record = {'dtype': 'float32', 'channels_last': can_pack(), 'compile': False, 'pack': can_pack()}
    assert used_preparation(runner) == record


def test_a_test_of_a_plain_model_records_what_was_done_to_it():
    config = Config.fromfile(str(rass_mm.config_path('baselines/resnet_scenes_tiny.py')))
    plain = MODELS.build(config.model).eval()
    records = []
    for dtype in ('float32', 'bfloat16'):
        hook = PreparedTestHook(Preparation(dtype))
        runner = SimpleNamespace(model=plain, hooks=[hook])
        hook.before_test_epoch(runner)
        hook.after_test_epoch(runner)
        records.append(used_preparation(runner))
    assert records == [None, {'dtype': 'bfloat16', 'channels_last': False, 'compile': False, 'pack': False}]


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_compiled_modules_are_those_that_a_model_describes(rass, adapter, tiny_base, images, dtype, monkeypatch):
    compiler, traced = torch.compile, []

    def tracing(run, mode, dynamic):  # code generation takes minutes
        traced.append(run)
        return compiler(run, backend='eager', dynamic=dynamic) if len(traced) == 1 else run

    monkeypatch.setattr(torch, 'compile', tracing)
    plain = logits(prepare(sharing_copy(rass), Preparation(dtype, pack=False)), images)
    found = logits(prepare(sharing_copy(rass), Preparation(dtype, compile=True)), images)
    tolerance = 1e-4 if dtype == 'float32' else 0.05  # compiled attention does not run in blocks
    assert len(traced) == 2 and (found - plain).abs().max() <= tolerance * plain.abs().max()
    restorer = prepare(load_restorer(adapter, tiny_base), Preparation(dtype, compile=True))
    assert len(traced) == 5 and restorer(images).shape == images.shape
    config = Config.fromfile(str(rass_mm.config_path('baselines/resnet_scenes_tiny.py')))
    prepare(MODELS.build(config.model), Preparation(dtype, compile=True))
    assert len(traced) == 6


@pytest.mark.parametrize('keys', [200, 9])
def test_attention_in_blocks_equals_the_fused_kernel(keys):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, tokens, 16) for tokens in (200, keys, keys))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    found = attend(*(part.bfloat16() for part in (query, key, value)))
    assert (found.float() - expected).abs().max() < 0.03
    torch.testing.assert_close(attend(query, key, value), expected)


def test_the_dtype_follows_the_instructions_of_the_cpu(monkeypatch):
    for flags, expected in (({}, 'float32'), ({'avx512_bf16': True}, 'bfloat16'), ({'amx_bf16': True}, 'bfloat16')):
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda flags=flags: flags, raising=False)
        assert default_dtype(torch.device('cpu')) == expected
    monkeypatch.delattr(torch.cpu, 'get_capabilities')
    assert not cpu_has_bfloat16() and devices.default_dtype(torch.device('cpu')) == 'float32'


def test_deterministic_computes_as_trained():
    try:
        assert chosen_preparation(deterministic=True) is None
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    for options in ({'dtype': 'bfloat16'}, {'compile': True}):
        with pytest.raises(ConfigError, match='Remove dtype'):
            chosen_preparation(deterministic=True, **options)
    with pytest.raises(ConfigError, match='must be one of float32'):
        Preparation('int8')
