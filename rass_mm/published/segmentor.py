"""Mapping of the tensors in RASS's detectron2 checkpoint to those of this package and of a Stable Diffusion base."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from rass_mm.errors import CheckpointError
from rass_mm.published.lora import collect_lora

FEATURES = 'backbone.feature_extractor.'
UNET = f'{FEATURES}sd.unet.'
BASE_PARTS = {'unet': UNET, 'vae': f'{FEATURES}sd.vae.', 'text_encoder': f'{FEATURES}sd.text_encoder.'}
LEFT_OUT = {
    f'{FEATURES}ram.': 'the tagger RAM: its own weights are published by its authors (prompt.tagger.weights)',
    f'{FEATURES}dape.': 'the tagger DAPE, whose tags the released segmentor computes and does not use',
    'backbone.jpeger.': 'tables of a JPEG simulator for training; degradation is a data transform here',
    'criterion.': "the class weights of the loss, which are in this package's config",
}
EXTRACTOR = 'backbone.extractor.unet.'
ADAPTER = 'seg'
POSITION_IDS = 'embeddings.position_ids'

HEAD = 'sem_seg_head.'
PIXEL, PREDICTOR = 'pixel_decoder.', 'predictor.'
ENCODER, DECODER = r'pixel_decoder\.transformer\.encoder\.layers\.(\d+)\.', r'predictor\.transformer_'
ENCODER_TO, DECODER_TO = r'pixel_decoder.encoder.layers.\1.', r'transformer_decoder.layers.\1.'
RULES = tuple(
    (re.compile(pattern), target)
    for pattern, target in (
        # The pixel decoder of mmdet numbers its inputs from the coarsest level, as detectron2's does.
        (r'pixel_decoder\.input_proj\.(\d+)\.0\.', r'pixel_decoder.input_convs.\1.conv.'),
        (r'pixel_decoder\.input_proj\.(\d+)\.1\.', r'pixel_decoder.input_convs.\1.gn.'),
        (r'pixel_decoder\.transformer\.level_embed$', 'pixel_decoder.level_encoding.weight'),
        (ENCODER + r'self_attn\.', ENCODER_TO + 'self_attn.'),
        (ENCODER + r'norm1\.', ENCODER_TO + 'norms.0.'),
        (ENCODER + r'norm2\.', ENCODER_TO + 'norms.1.'),
        (ENCODER + r'linear1\.', ENCODER_TO + 'ffn.layers.0.0.'),
        (ENCODER + r'linear2\.', ENCODER_TO + 'ffn.layers.1.'),
        (r'pixel_decoder\.mask_features\.', 'pixel_decoder.mask_feature.'),
        # A decoder layer attends to the image first, then to the other queries; the norms follow that order.
        (DECODER + r'cross_attention_layers\.(\d+)\.multihead_attn\.', DECODER_TO + 'cross_attn.attn.'),
        (DECODER + r'cross_attention_layers\.(\d+)\.norm\.', DECODER_TO + 'norms.0.'),
        (DECODER + r'self_attention_layers\.(\d+)\.self_attn\.', DECODER_TO + 'self_attn.attn.'),
        (DECODER + r'self_attention_layers\.(\d+)\.norm\.', DECODER_TO + 'norms.1.'),
        (DECODER + r'ffn_layers\.(\d+)\.linear1\.', DECODER_TO + 'ffn.layers.0.0.'),
        (DECODER + r'ffn_layers\.(\d+)\.linear2\.', DECODER_TO + 'ffn.layers.1.'),
        (DECODER + r'ffn_layers\.(\d+)\.norm\.', DECODER_TO + 'norms.2.'),
        (r'predictor\.decoder_norm\.', 'transformer_decoder.post_norm.'),
        (r'predictor\.class_embed\.', 'cls_embed.'),
        (r'predictor\.(query_feat|query_embed|level_embed)\.', r'\1.'),
    )
)
LATERAL = re.compile(r'pixel_decoder\.(adapter|layer)_(\d+)\.(norm\.)?(weight|bias)')
MASK_LAYER = re.compile(r'predictor\.mask_embed\.layers\.(\d+)\.(weight|bias)')
PROJECTION = re.compile(r'feature_projections\.(\d+)\.0\.(conv1|conv2|conv3|shortcut)\.(norm\.)?(weight|bias)')


@dataclass
class MappedSegmentor:
    """Tensors of a published segmentor under this package's names.

    Args:
        trained: the state dict of a `RASS` model, without provenance.
        base: 'unet', 'vae' or 'text_encoder' -> tensors of this part of the base. Parts that the file does not contain
            are absent.
        rank: rank of the LoRA.
        used: published name -> new name.
        left_out: published name -> reason why the tensor was not converted.
    """

    trained: dict[str, Tensor] = field(default_factory=dict)
    base: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    rank: int = 0
    used: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def map_segmentor(model: Mapping[str, Tensor], unet: nn.Module) -> MappedSegmentor:
    """Maps every tensor of a published model to its new name.

    Args:
        model: the entry `model` of the file, published name -> tensor.
        unet: the UNet of the base without adapters, on any device.

    Raises:
        CheckpointError: tensors are unknown (the message contains their number and the first names), or the LoRA does
            not fit the UNet.
    """
    result, unmapped = MappedSegmentor(), []
    for key, value in model.items():
        place = _place(key)
        reason = next((why for start, why in LEFT_OUT.items() if key.startswith(start)), None)
        if key.endswith(POSITION_IDS):
            reason = 'an index table that newer text encoders make themselves'
        if reason is not None:
            result.left_out[key] = reason
        elif key.startswith(UNET) and '.lora_' in key:
            pass  # added together below
        elif place is None:
            unmapped.append(key)
        else:
            part, name = place
            (result.trained if part == 'trained' else result.base.setdefault(part, {}))[name] = value
            result.used[key] = name if part == 'trained' else f'base/{part}/{name}'
    if unmapped:
        raise CheckpointError(
            f'{len(unmapped)} tensors of the file have no counterpart in a RASS model, e.g. '
            f'{", ".join(unmapped[:4])}. Use a file that was written by the released code.'
        )
    _add_lora(model, unet, result)
    return result


def _add_lora(model: Mapping[str, Tensor], unet: nn.Module, result: MappedSegmentor) -> None:
    own = {key.removeprefix(UNET): value for key, value in model.items() if key.startswith(UNET)}
    lora = collect_lora(own, unet, 'UNet')
    result.rank = lora.rank
    for name, value in lora.tensors.items():
        target = EXTRACTOR + name.replace('.weight', f'.{ADAPTER}.weight')
        result.trained[target] = value
        result.used[UNET + lora.sources[name]] = target
    # conv_in is trained in this stage, so the checkpoint needs it too; the base's original conv_in is not in the file.
    for end in ('weight', 'bias'):
        key = f'conv_in.base_layer.{end}'
        if key in own:
            result.trained[EXTRACTOR + key] = own[key]
            result.used[UNET + key] = EXTRACTOR + key


def _place(key: str) -> tuple[str, str] | None:
    """Returns the part and the new name of a tensor outside the LoRA, or None if the tensor is unknown."""
    for part, start in BASE_PARTS.items():
        if key.startswith(start):
            return part, key.removeprefix(start).replace('.base_layer.', '.')
    if match := PROJECTION.fullmatch(key.removeprefix(FEATURES)):
        index, block, norm, end = match.groups()
        return 'trained', f'neck.projections.{index}.{block}.{1 if norm else 0}.{end}'
    if key.startswith(HEAD) and (name := head_name(key.removeprefix(HEAD))):
        return 'trained', f'decode_head.{name}'
    return None


def head_name(key: str) -> str | None:
    """Returns the name of a tensor of the detectron2 head in mmdet's Mask2Former head, or None if it is unknown."""
    if match := LATERAL.fullmatch(key):
        kind, number, norm, end = match.groups()
        convs = 'lateral_convs' if kind == 'adapter' else 'output_convs'
        return f'pixel_decoder.{convs}.{int(number) - 1}.{"gn" if norm else "conv"}.{end}'
    if match := MASK_LAYER.fullmatch(key):
        return f'mask_embed.{2 * int(match[1])}.{match[2]}'  # activations have the odd indices
    for pattern, target in RULES:
        name, count = pattern.subn(target, key)
        if count and key.startswith((PIXEL, PREDICTOR)):
            return name
    return None
