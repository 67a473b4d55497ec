"""Feature tables, compared with real forward passes, and the extractor, compared with its parts called one by one."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from rass_mm.diffusion.adapter_files import save_adapter
from rass_mm.diffusion.adapter_loading import load_adapter
from rass_mm.diffusion.adapters import AdapterSpec, add_adapter, merge_adapter
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae
from rass_mm.diffusion.extractor import DiffusionExtractor
from rass_mm.diffusion.features import RASS_FEATURES, collected, describe_features
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.errors import ConfigError, DataError

TINY = [
    *(f'vae.down_blocks.{index}' for index in range(3)),
    *(f'unet.down_blocks.{index}' for index in range(4)),
    'unet.mid_block',
    *(f'unet.up_blocks.{index}' for index in range(4)),
]
SD = ['vae.down_blocks.3', *TINY]
SIX = ['vae.down_blocks.1', 'vae.down_blocks.2', *TINY[-4:]]


@pytest.fixture(scope='module')
def base(tiny_base):
    return read_base(tiny_base)


@pytest.fixture(scope='module')
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 64, 96, generator=generator) * 2 - 1, torch.randn(2, 5, 64, generator=generator)


def hooks(extractor):
    return [hook for part in extractor.modules() for hook in part._forward_hooks]


def fresh(base, **keywords):
    torch.manual_seed(0)
    return DiffusionExtractor(base, keywords.pop('features', SIX), **keywords)


def lora_moved(extractor):
    """Sets every trained tensor to a nonzero value, because initially B is 0 and A gets no gradient."""
    generator = torch.Generator().manual_seed(1)
    for parameter in extractor.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return extractor


def measured(unet, vae, images, context):
    """Returns the channels and the stride of every block, from one plain forward pass of both models."""
    places = {f'vae.down_blocks.{i}': block for i, block in enumerate(vae.encoder.down_blocks)}
    places |= {f'unet.down_blocks.{i}': block for i, block in enumerate(unet.down_blocks)}
    places |= {f'unet.up_blocks.{i}': block for i, block in enumerate(unet.up_blocks)} | {
        'unet.mid_block': unet.mid_block
    }
    sizes = {}
    for name, block in places.items():
        block.register_forward_hook(
            lambda _m, _i, out, name=name: sizes.update({name: (out[0] if isinstance(out, tuple) else out).shape})
        )
    latent = vae.encode(images).latent_dist.mode()
    unet(latent, torch.tensor(1, device=latent.device), encoder_hidden_states=context)
    return {name: (size[1], images.shape[-2] / size[-2], images.shape[-1] / size[-1]) for name, size in sizes.items()}


def table(base, names):
    return {info.name: (info.channels, info.stride, info.stride) for info in describe_features(base, names)}


@torch.no_grad()
def test_described_features_match_a_forward_pass(base, batch):
    unet = UNet2DConditionModel.from_pretrained(base.folder / 'unet')
    vae = AutoencoderKL.from_pretrained(base.folder / 'vae')
    assert table(base, TINY) == measured(unet, vae, *batch)


@pytest.mark.parametrize(('name', 'width'), [('sd15', 768), ('sd21-base', 1024), ('sd-turbo', 1024)])
def test_described_features_of_stable_diffusion_match_a_forward_pass(tmp_path, name, width):
    write_random_base(tmp_path / 'sd', name, weights=False)
    base = read_base(tmp_path / 'sd', {'cross_attention_dim': width})
    with torch.device('meta'), torch.no_grad():
        found = measured(load_unet(base), load_vae(base), torch.empty(1, 3, 128, 192), torch.empty(1, 7, width))
    assert table(base, SD) == found
    released = [(256, 4), (512, 8), (1280, 32), (1280, 16), (640, 8), (320, 8)]
    assert [(info.channels, info.stride) for info in describe_features(base, RASS_FEATURES)] == released
    assert base.size_multiple == 64


def test_order_of_the_names_is_kept(base):
    assert [info.name for info in describe_features(base, TINY[::-1])] == TINY[::-1]


def test_unknown_feature_lists_the_existing_ones(base):
    with pytest.raises(ConfigError) as caught:
        describe_features(base, ['unet.mid_block', 'unet.up_blocks.4'])
    assert "'unet.up_blocks.4'" in str(caught.value) and all(name in str(caught.value) for name in TINY)


def test_collecting_leaves_no_hook_behind_even_after_an_error(base, batch):
    extractor = fresh(base)
    extractor(*batch)
    assert not hooks(extractor)
    with pytest.raises(RuntimeError):
        extractor(batch[0], batch[1][..., :3])
    assert not hooks(extractor)
    with pytest.raises(KeyError), collected({'mid': extractor.unet.mid_block}):
        assert len(hooks(extractor)) == 1
        raise KeyError
    assert not hooks(extractor)


def test_features_equal_those_of_blocks_called_directly(base, batch):
    images, context = batch
    extractor = lora_moved(fresh(base)).eval()
    with torch.no_grad():
        found = extractor(images, context)
        latent = extractor.encode(images)
        x = extractor.vae.encoder.conv_in(images)
        for block in list(extractor.vae.encoder.down_blocks)[:2]:
            x = block(x)
        unet = extractor.unet
        noise = unet(latent, 1, encoder_hidden_states=context).sample
        last = unet.conv_out(unet.conv_act(unet.conv_norm_out(found[-1])))
    torch.testing.assert_close(found[0], x)
    torch.testing.assert_close(last, noise)
    shapes = [(2, info.channels, 64 // info.stride, 96 // info.stride) for info in extractor.features]
    assert [tuple(feature.shape) for feature in found] == shapes


@pytest.mark.parametrize('size', [(64, 80), (33, 64), (16, 16)])
def test_size_that_does_not_fit_names_the_setting(base, size):
    with pytest.raises(DataError, match=rf'{size[0]}x{size[1]} .*multiples of 32.*\n?.*size_divisor=32'):
        fresh(base, train='nothing')(torch.zeros(1, 3, *size), torch.zeros(1, 2, 64))


def test_encode_equals_the_mode_of_diffusers_times_the_scaling_factor(base, batch):
    vae = AutoencoderKL.from_pretrained(base.folder / 'vae').eval()
    with torch.no_grad():
        expected = vae.encode(batch[0]).latent_dist.mode() * vae.config.scaling_factor
    extractor = fresh(base)
    assert vae.config.scaling_factor != 1 and torch.equal(extractor.train().encode(batch[0]), expected)
    assert torch.equal(extractor.eval().encode(batch[0]), expected)


def test_sampled_latents_have_the_standard_deviation_of_the_posterior(base, batch):
    images = batch[0][..., :32, :32]
    extractor = fresh(base, train='nothing', sample_latent=True).train()
    with torch.no_grad():
        posterior = extractor.vae.encode(images).latent_dist
    draws = torch.stack([extractor.encode(images) for _ in range(40)]) / base.scaling_factor
    spread = (draws - posterior.mean).div(posterior.std)
    assert abs(spread.mean().item()) < 0.02 and spread.std().item() == pytest.approx(1, abs=0.02)


def gradients(extractor, batch):
    extractor.zero_grad()
    features = extractor.train()(*batch)
    sum(feature.square().mean() for feature in features).backward()
    return [feature.detach() for feature in features], {
        name: parameter.grad for name, parameter in extractor.named_parameters() if parameter.requires_grad
    }


def test_gradient_checkpointing_changes_neither_features_nor_gradients(base, batch):
    plain, saving = (lora_moved(fresh(base, gradient_checkpointing=flag)) for flag in (False, True))
    calls = []
    saving.unet.up_blocks[1].resnets[0].register_forward_pre_hook(lambda *_: calls.append(1))
    (features, expected), (found, grads) = gradients(plain, batch), gradients(saving, batch)
    assert len(calls) == 2  # the forward pass was recomputed
    torch.testing.assert_close(found, features, atol=1e-5, rtol=1e-5)
    assert set(grads) == set(expected) and any('lora_A' in name for name in grads)
    assert all(gradient is not None and gradient.any() for gradient in expected.values())
    torch.testing.assert_close(grads, expected, atol=1e-5, rtol=1e-5)


def test_the_frozen_vae_keeps_no_graph_and_stays_in_eval_mode(base, batch):
    extractor = fresh(base).train()
    features = dict(zip(SIX, extractor(*batch), strict=True))
    assert all(feature.requires_grad == name.startswith('unet') for name, feature in features.items())
    assert not any(part.training for part in extractor.vae.modules()) and extractor.unet.training
    assert not any(parameter.requires_grad for parameter in extractor.vae.parameters())


@pytest.mark.parametrize('train', ['adapter', 'unet', 'nothing'])
def test_only_the_requested_parts_are_trained(base, train):
    extractor = fresh(base, train=train)
    names = {name for name, parameter in extractor.named_parameters() if parameter.requires_grad}
    unused = {
        name for name, _ in extractor.named_parameters() if name.startswith(('unet.conv_norm_out', 'unet.conv_out'))
    }
    everything = {name for name, _ in extractor.named_parameters() if name.startswith('unet')} - unused
    conv_in = {'unet.conv_in.base_layer.weight', 'unet.conv_in.base_layer.bias'}
    expected = {'unet': everything, 'nothing': set(), 'adapter': {n for n in everything if 'lora_' in n} | conv_in}
    assert names == expected[train] and unused


def test_unknown_training_mode_is_refused(base):
    with pytest.raises(ConfigError, match="'adaptor'"):
        fresh(base, train='adaptor')


def test_merged_adapter_equals_an_explicit_merge(base, batch, tmp_path):
    images, context = batch
    unet = load_unet(base)
    add_adapter(unet, 'scr', AdapterSpec(rank=2, alpha=6.0))
    lora_moved(unet)
    save_adapter(unet, 'scr', tmp_path / 'scr.safetensors', base.identity)
    merged = fresh(base, merged_adapter=str(tmp_path / 'scr.safetensors'))
    by_hand = fresh(base, train='nothing')
    header = load_adapter(by_hand.unet, tmp_path / 'scr.safetensors', base.identity)
    merge_adapter(by_hand.unet, 'scr')
    plain = fresh(base)
    with torch.no_grad():
        found, expected, without = (model.eval()(images, context) for model in (merged, by_hand, plain))
        latent = merged.encode(images)
        noise, unmerged = (model(latent, 1, encoder_hidden_states=context).sample for model in (merged.unet, unet))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert (noise - unmerged).abs().max() < 1e-4
    assert (found[-1] - without[-1]).abs().max() > 0.1
    assert merged.merged == [{'name': 'scr', 'hash': header['hash']}] and plain.merged == []
    assert {name.split('.')[-2] for name, _ in merged.named_parameters() if 'lora_' in name} == {'seg'}


def test_context_and_timestep_reach_the_unet(base, batch):
    images, context = batch
    with torch.no_grad():
        first, other, late = (
            fresh(base, train='nothing', timestep=step)(images, tokens)[-1]
            for step, tokens in ((1, context), (1, -context), (900, context))
        )
    assert (first - other).abs().max() > 1e-4 and (first - late).abs().max() > 1e-4


def test_eval_is_reproducible_bit_by_bit(base, batch):
    extractor = fresh(base).eval()
    with torch.no_grad():
        first, second = extractor(*batch), extractor(*batch)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
