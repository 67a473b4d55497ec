"""Files in the layouts in which the authors publish, with random values, for any Stable Diffusion shapes.

Written from the layouts alone: names and shapes follow from the networks and the lists of adapted layers.
"""

import re

import torch
from torch import nn

UNET_PATTERNS = (
    *('to_q', 'to_k', 'to_v', 'to_out.0', 'conv', 'conv1', 'conv2', 'conv_in', 'conv_shortcut'),
    *('proj_in', 'proj_out', 'ff.net.0.proj', 'ff.net.2'),
)


def adapted(model, patterns):
    """Names of the convolutions and linear layers that end in one of the patterns, in module order."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and ('.' + name).endswith(tuple('.' + p for p in patterns))
    ]


def unet_groups(unet, conv_out=True):
    """The released three lists of adapted UNet layers."""
    layers = adapted(unet, UNET_PATTERNS)
    return {
        'encoder': [name for name in layers if name.startswith(('conv_in', 'down_blocks'))],
        'decoder': [name for name in layers if name.startswith('up_blocks')] + (['conv_out'] if conv_out else []),
        'others': [name for name in layers if name.startswith('mid_block')],
    }


def vae_layers(vae):
    """Adapted layers of the VAE: every convolution and attention projection of the encoder, and quant_conv."""
    return [
        name
        for name, module in vae.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and (name.startswith('encoder.') or name == 'quant_conv')
    ]


def lora_pair(model, layer, adapter, rank, draw):
    """The two tensors of one layer, by their published names."""
    shape = model.get_submodule(layer).weight.shape
    ones = (1,) * (len(shape) - 2)
    return {
        f'{layer}.lora_A.{adapter}.weight': draw(rank, *shape[1:]),
        f'{layer}.lora_B.{adapter}.weight': draw(shape[0], rank, *ones),
    }


def drawer(seed=0, scale=0.05):
    """draw(*shape) -> small random tensor, or one without values on the meta device."""
    if torch.get_default_device().type == 'meta':
        return torch.empty
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator) * scale


def restorer_file(unet, vae=None, rank=4, conv_out=True, draw=None):
    """Content of osediff.pkl (with a VAE) or scr.pkl (without)."""
    draw = draw or drawer()
    groups = unet_groups(unet, conv_out)
    tensors = {
        'conv_in.base_layer.weight': unet.conv_in.weight.detach() + draw(*unet.conv_in.weight.shape),
        'conv_in.base_layer.bias': unet.conv_in.bias.detach() + draw(*unet.conv_in.bias.shape),
    }
    for group, layers in groups.items():
        for layer in layers:
            tensors |= lora_pair(unet, layer, f'default_{group}', rank, draw)
    content = {f'unet_lora_{group}_modules': layers for group, layers in groups.items()}
    content |= {'rank_unet': rank, 'state_dict_unet': tensors}
    if vae is None:
        return content
    layers = vae_layers(vae)
    pairs = [lora_pair(vae, layer, 'default_encoder', rank, draw) for layer in layers]
    return {
        'vae_lora_encoder_modules': [
            *layers,
            *layers[:3],
            'quant_conv',
            'quant_conv',
        ],  # names are repeated in the file
        **content,
        'rank_vae': rank,
        'state_dict_vae': {key: value for pair in pairs for key, value in pair.items()},
    }


FEATURES = 'backbone.feature_extractor.'


def segmentor_base_keys(models, draw, rank=4):
    """The Stable Diffusion part of rass.pth: merged UNet under LoRA wrappers, VAE, text encoder."""
    unet, tensors = models['unet'], {}
    groups = {f'default_{group}_s2': layers for group, layers in unet_groups(unet, conv_out=False).items()}
    wrapped = {layer for layers in groups.values() for layer in layers}
    for key, value in unet.state_dict().items():
        layer, _, end = key.rpartition('.')
        inner = f'{layer}.base_layer.{end}' if layer in wrapped else key
        tensors[f'{FEATURES}sd.unet.{inner}'] = value.clone()
    for group, layers in groups.items():
        for layer in layers:
            pair = lora_pair(unet, layer, group, rank, draw)
            tensors |= {f'{FEATURES}sd.unet.{key}': value for key, value in pair.items()}
    tensors |= {f'{FEATURES}sd.vae.{key}': value.clone() for key, value in models['vae'].state_dict().items()}
    for key, value in models['text_encoder'].state_dict().items():
        key = key if key.startswith('text_model.') else f'text_model.{key}'
        tensors[f'{FEATURES}sd.text_encoder.{key}'] = value.clone()
    return tensors


def projection_keys(neck, draw):
    """The projections of rass.pth, shaped like a neck of this package."""
    tensors = {}
    for key, value in neck.state_dict().items():
        index, block, part, end = re.fullmatch(r'projections\.(\d+)\.(\w+)\.([01])\.(\w+)', key).groups()
        norm = 'norm.' if part == '1' else ''
        tensors[f'{FEATURES}feature_projections.{index}.0.{block}.{norm}{end}'] = draw(*value.shape) + (
            1 if norm and end == 'weight' else 0
        )
    return tensors


def others(draw):
    """Other contents of rass.pth: two taggers, a JPEG simulator, the criterion."""
    return {
        f'{FEATURES}ram.label_embed': draw(4, 8),
        f'{FEATURES}ram.visual_encoder.layers.0.blocks.0.attn.qkv.weight': draw(4, 4),
        f'{FEATURES}dape.visual_encoder.layers.0.blocks.0.attn.qkv.lora_A': draw(2, 4),
        'backbone.jpeger.compress.l1.0.shift': draw(3),
        'criterion.empty_weight': draw(13),
    }
