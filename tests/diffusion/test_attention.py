"""Captured attention maps, compared with the formula; capturing must not affect the UNet."""

import copy
import math

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from rass_mm.diffusion.adapters import add_adapter
from rass_mm.diffusion.attention import captured_attention, class_maps, cross_attention_layers, map_size
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet
from rass_mm.diffusion.prompts import NOBODY, ClassTokens, GroundTruthTagger, TagPrompt
from rass_mm.errors import ConfigError

MID = 'mid_block.attentions.0.transformer_blocks.0.attn2'
SIZE = (64, 96)
"""Image height and width; the latent is 16x24."""


@pytest.fixture(scope='module')
def base(tiny_base):
    return read_base(tiny_base)


@pytest.fixture(scope='module')
def adapted(base):
    torch.manual_seed(0)
    unet = load_unet(base)
    add_adapter(unet, 'scr')
    for name, parameter in unet.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return unet


@pytest.fixture
def unet(adapted):
    """Provides a UNet with an adapter with nonzero B, so that the wrapped projections are tested."""
    return copy.deepcopy(adapted)


def inputs(base, tokens=6):
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(2, base.configs['unet']['in_channels'], 16, 24, generator=generator)
    return latent, torch.randn(2, tokens, base.context_width, generator=generator)


def predict(unet, latent, context):
    return unet(latent, 1, encoder_hidden_states=context).sample


def processors(unet):
    return {name: module.processor for name, module in unet.named_modules() if hasattr(module, 'processor')}


def projection(layer, x):
    """Computes x W^T with an explicit LoRA in float64."""
    a, b = layer.lora_A['scr'].weight.double(), layer.lora_B['scr'].weight.double()
    return x.double() @ (layer.base_layer.weight.double() + layer.scaling['scr'] * b @ a).T


def test_maps_are_the_mean_over_heads_of_the_softmax(unet, base):
    latent, context = inputs(base)
    layers, seen = cross_attention_layers(unet), {}
    for name in layers:
        unet.get_submodule(name).register_forward_hook(
            lambda _module, positional, named, _out, name=name: seen.update({name: positional[0].detach()}),
            with_kwargs=True,
        )
    with torch.no_grad(), captured_attention(unet, layers) as maps:
        predict(unet, latent, context)
    assert list(maps) == layers
    for name in layers:
        attn = unet.get_submodule(name)
        query, key = projection(attn.to_q, seen[name]), projection(attn.to_k, context)
        heads, width = attn.heads, query.shape[-1] // attn.heads
        assert heads > 1
        expected = torch.zeros(*query.shape[:2], key.shape[1], dtype=torch.float64)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            expected += (query[..., part] @ key[..., part].mT / math.sqrt(width)).softmax(-1) / heads
        torch.testing.assert_close(maps[name].double(), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(maps[name].sum(-1), torch.ones(maps[name].shape[:2]))
        assert maps[name].std(1).max() > 1e-3  # not constant


def test_output_equals_the_fused_kernel(unet, base):
    latent, context = inputs(base)
    with torch.no_grad():
        fused = predict(unet, latent, context)
        with captured_attention(unet, cross_attention_layers(unet, ('down_blocks', 'mid_block', 'up_blocks'))):
            explicit = predict(unet, latent, context)
    torch.testing.assert_close(explicit, fused, rtol=0, atol=1e-5)


@pytest.mark.parametrize('broken', [False, True])
def test_nothing_stays_patched(unet, base, broken):
    before = processors(unet)
    if broken:
        with pytest.raises(KeyError), captured_attention(unet, cross_attention_layers(unet)):
            raise KeyError('inside')
    else:
        with captured_attention(unet, cross_attention_layers(unet)):
            assert processors(unet)[MID] is not before[MID]
    after = processors(unet)
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
    assert all(isinstance(processor, AttnProcessor2_0) for processor in after.values())


def test_an_unknown_layer_patches_nothing(unet):
    before = processors(unet)
    with pytest.raises(AttributeError), captured_attention(unet, [MID, 'mid_block.nowhere']):
        pass
    assert all(processors(unet)[name] is processor for name, processor in before.items())


def test_only_the_chosen_layers_are_explicit(unet, base):
    layers = cross_attention_layers(unet, ('mid_block', 'up_blocks.1'))
    assert layers and all(name.startswith(('mid_block', 'up_blocks.1.')) for name in layers)
    before = processors(unet)
    with torch.no_grad(), captured_attention(unet, layers) as maps:
        changed = {name for name, processor in processors(unet).items() if processor is not before[name]}
        predict(unet, *inputs(base))
    assert changed == set(layers) == set(maps)
    assert not any('attn1' in name for name in changed)


def test_the_second_half_is_the_default(unet):
    layers = {name for name, _ in unet.named_modules() if name.endswith('attn2') and not name.startswith('down_blocks')}
    assert set(cross_attention_layers(unet)) == layers and len(layers) > 3


def test_layers_are_named_in_the_order_in_which_they_run(unet, base):
    layers, ran = cross_attention_layers(unet, ('up_blocks', 'down_blocks', 'mid_block')), []
    for name in layers:
        unet.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        predict(unet, *inputs(base))
    assert ran == layers


def test_a_place_without_cross_attention_lists_those_with(unet):
    with pytest.raises(ConfigError, match=r"'up_blocks\.0'.*mid_block, up_blocks\.1, up_blocks\.2, up_blocks\.3"):
        cross_attention_layers(unet, ('mid_block', 'up_blocks.0'))
    for places in (['up_block'], []):
        with pytest.raises(ConfigError, match=f"'{''.join(places)}'.*up_blocks"):
            cross_attention_layers(unet, places)


def test_a_second_call_overwrites_the_first(unet, base):
    latent, context = inputs(base)
    with torch.no_grad(), captured_attention(unet, [MID]) as maps:
        predict(unet, latent, context)
        first = maps[MID]
        predict(unet, latent * 2, context)
    assert not torch.equal(maps[MID], first)


@pytest.mark.parametrize('checkpointing', [False, True])
def test_gradients_of_a_loss_on_the_maps_reach_the_adapter(unet, base, checkpointing):
    """Checks that the gradients are the same with checkpointing, which runs the layers again in the backward pass."""
    latent, context = inputs(base)
    gradients = []
    for mode in (False, checkpointing):
        unet.zero_grad(set_to_none=True)
        if mode:
            unet.enable_gradient_checkpointing()
        with captured_attention(unet, cross_attention_layers(unet)) as maps:
            output = predict(unet.train(), latent, context)
            loss = sum(part[..., 1].square().mean() for part in maps.values()) + output.square().mean()
            loss.backward()
        gradients.append({name: p.grad for name, p in unet.named_parameters() if p.grad is not None})
    query = gradients[0][f'{MID}.to_q.lora_B.scr.weight']
    assert query.abs().max() > 0 and gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-7)


def test_gradient_of_the_maps_equals_finite_differences(unet, base):
    latent, context = inputs(base)
    parameter = unet.get_submodule(MID).to_k.lora_B['scr'].weight

    def loss():
        with captured_attention(unet, [MID]) as maps:
            predict(unet, latent, context)
        return maps[MID][..., 1].square().sum()

    unet.double()
    latent, context = latent.double(), context.double()
    loss().backward()
    direction = torch.randn_like(parameter)
    with torch.no_grad():
        parameter += 1e-6 * direction
        above = loss()
        parameter -= 2e-6 * direction
        slope = (above - loss()) / 2e-6
    assert slope.item() == pytest.approx((parameter.grad * direction).sum().item(), rel=1e-5)


def test_bfloat16_autocast(unet, base):
    latent, context = inputs(base)
    with torch.no_grad():
        with captured_attention(unet, cross_attention_layers(unet)) as exact:
            predict(unet, latent, context)
        with captured_attention(unet, cross_attention_layers(unet)) as maps, torch.autocast('cpu', torch.bfloat16):
            explicit = predict(unet, latent, context)
        with torch.autocast('cpu', torch.bfloat16):
            fused = predict(unet, latent, context)
    torch.testing.assert_close(explicit, fused, rtol=0, atol=0.05)
    for name, part in maps.items():
        torch.testing.assert_close(part.float(), exact[name], rtol=0, atol=0.02)


def test_class_maps_sum_the_tokens_of_each_class():
    attention = torch.rand(6, 5)
    owners = torch.tensor([NOBODY, 7, 2, 7, NOBODY])
    maps = class_maps(attention, owners, [2, 7, 4], (2, 3))
    assert maps.shape == (3, 2, 3)
    for y in range(2):
        for x in range(3):
            row = attention[3 * y + x]
            expected = torch.stack([row[2], row[1] + row[3], torch.tensor(0.0)])
            torch.testing.assert_close(maps[:, y, x], expected)
    assert class_maps(attention, owners, [], (2, 3)).shape == (0, 2, 3)
    assert not class_maps(attention, owners, [NOBODY], (2, 3)).any()


@pytest.mark.parametrize(
    ('positions', 'image', 'expected'),
    [
        (24, (64, 96), (4, 6)),
        (24, (96, 64), (6, 4)),
        (384, (64, 96), (16, 24)),
        (64, (512, 512), (8, 8)),
        (6144, (64, 96), (64, 96)),
    ],
)
def test_maps_have_the_aspect_ratio_of_the_image(positions, image, expected):
    assert map_size(positions, image) == expected


@pytest.mark.parametrize(('positions', 'image'), [(25, (64, 96)), (24, (64, 100)), (24, (66, 96)), (1, (64, 96))])
def test_positions_that_do_not_tile_the_image_are_refused(positions, image):
    with pytest.raises(ConfigError, match=f'{positions} attention positions.*{image[0]}x{image[1]}'):
        map_size(positions, image)


def test_every_captured_map_tiles_its_image(unet, base):
    with torch.no_grad(), captured_attention(unet, cross_attention_layers(unet)) as maps:
        predict(unet, *inputs(base))
    sizes = {map_size(part.shape[1], SIZE) for part in maps.values()}
    assert sizes == {(2, 3), (4, 6), (8, 12), (16, 24)}


CLASSES = ['road', 'sign symbol', 'sky', 'zebra crossing']
PRESENT = (0, 1, 3)


def place_of(words, sentence):
    """Returns the positions of one sequence of token ids in the sentence."""
    [start] = [n for n in range(len(sentence)) if sentence[n : n + len(words)] == words]
    return list(range(start, start + len(words)))


@pytest.mark.parametrize('kind', ['tags', 'class_tokens'])
def test_each_class_owns_the_attention_of_its_words(unet, base, kind):
    label = torch.tensor(PRESENT).repeat_interleave(8).view(1, 3, 8)
    if kind == 'tags':
        prompt = TagPrompt(base, CLASSES, GroundTruthTagger(CLASSES))
        words = [prompt.text.token_ids(CLASSES[index]) for index in PRESENT]
        assert [len(word) for word in words[:2]] == [1, 2] and len(words[2]) > 2
        sentence = prompt.text.framed(prompt.text.token_ids('road, sign symbol, zebra crossing'))
        owned = {index: place_of(word, sentence) for index, word in zip(PRESENT, words, strict=True)}
    else:
        prompt = ClassTokens(base, CLASSES)
        owned = {index: [index] for index in range(len(CLASSES))}
    given = prompt(torch.zeros(1, 3, *SIZE), [SegDataSample(gt_sem_seg=PixelData(data=label))])
    latent, _ = inputs(base)
    with torch.no_grad(), captured_attention(unet, [MID]) as maps:
        predict(unet, latent[:1], given.context)
    found = class_maps(maps[MID][0], given.owners[0], range(len(CLASSES)), (2, 3))
    for index in range(len(CLASSES)):
        torch.testing.assert_close(found[index], maps[MID][0][:, owned.get(index, [])].sum(-1).view(2, 3))
    assert all(found[index].min() > 0 for index in PRESENT)
