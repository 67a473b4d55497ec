"""Mask2Former's head for prediction: equal results up to rounding, in less time and in any dtype.

mmdet's head is written for training. It computes the masks of all queries at full resolution after every layer, but a
prediction needs only the last ones. The masked attention of the other layers needs masks at low resolution. Resizing is
linear, so the features of the masks are resized once instead. Positional encodings are computed once per image size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmseg.models.decode_heads import Mask2FormerHead
from torch import Tensor, nn

from rass_mm.segmentation.deformable import DeformableAttention, Levels


def positional_encoding(encoding: nn.Module, size: tuple[int, int], like: Tensor) -> Tensor:
    """Computes the positional encoding (1, h * w, C) of a map with mmdet's module, in the dtype of `like`."""
    blank = torch.zeros((1, *size), dtype=torch.bool, device=like.device)
    return encoding(blank).flatten(2).transpose(1, 2).to(like.dtype)


def centres(size: tuple[int, int], device: torch.device) -> Tensor:
    """Returns the centres (x, y) of the cells of a map, (h * w, 2) float32 in [0, 1]."""
    rows, columns = ((torch.arange(side, device=device) + 0.5) / side for side in size)
    return torch.stack([columns.repeat(size[0]), rows.repeat_interleave(size[1])], -1)


class PreparedPixelDecoder(nn.Module):
    """mmdet's multi-scale deformable pixel decoder for prediction.

    Args:
        decoder: the decoder of mmdet. Its submodules are used, not copied.
    """

    def __init__(self, decoder: MSDeformAttnPixelDecoder) -> None:
        super().__init__()
        self.encoded, self.kept = decoder.num_encoder_levels, decoder.num_outs
        self.encoding, self.level_encoding = decoder.postional_encoding, decoder.level_encoding
        self.input_convs, self.mask_feature = decoder.input_convs, decoder.mask_feature
        self.lateral_convs, self.output_convs = decoder.lateral_convs, decoder.output_convs
        self.layers = decoder.encoder.layers
        for layer in self.layers:
            layer.self_attn = DeformableAttention(layer.self_attn)
        self._grid: tuple | None = None

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Computes the mask features, and features of several levels.

        Args:
            features: (B, C_i, H/s_i, W/s_i), finest first.

        Returns:
            The mask features (B, C, H/s, W/s) at the finest stride, and one map (B, C, h, w) per level, coarsest first.
        """
        maps = [conv(feature) for conv, feature in zip(self.input_convs, reversed(features), strict=False)]
        shapes = tuple((level.shape[2], level.shape[3]) for level in maps)
        positions, references, sizes = self._grid_of(shapes, maps[0])
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
        for layer in self.layers:
            tokens = layer.norms[0](layer.self_attn(tokens, positions, references, sizes))
            tokens = layer.norms[1](layer.ffn(tokens))
        parts = tokens.split([height * width for height, width in shapes], 1)
        levels = [part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]
        for index in reversed(range(len(features) - self.encoded)):
            lateral = self.lateral_convs[index](features[index])
            larger = F.interpolate(levels[-1], lateral.shape[2:], mode='bilinear', align_corners=False)
            levels.append(self.output_convs[index](lateral + larger))
        return self.mask_feature(levels[-1]), levels[: self.kept]

    def _grid_of(self, shapes: tuple, like: Tensor) -> tuple[Tensor, Tensor, Levels]:
        """Returns the positional encodings (1, S, C) and the centres (S, 2) of the cells, and keeps them."""
        key = (shapes, like.device, like.dtype)
        if self._grid is None or self._grid[0] != key:
            levels = zip(shapes, self.level_encoding.weight, strict=True)
            positions = [positional_encoding(self.encoding, shape, like) + level for shape, level in levels]
            points = [centres(shape, like.device) for shape in shapes]
            self._grid = (key, torch.cat(positions, 1), torch.cat(points), Levels(shapes, like.device))
        return self._grid[1:]


class HeadAttention(nn.Module):
    """Multi-head attention with the weights of mmcv's layer, for prediction.

    Args:
        layer: the layer of mmcv.
    """

    def __init__(self, layer: MultiheadAttention) -> None:
        super().__init__()
        attention = layer.attn
        self.heads = attention.num_heads
        parts = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
        self.query, self.key, self.value = (_linear(weight, bias) for weight, bias in parts)
        self.out = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Returns `x` plus the attention of (B, Q, C) queries to (B, N, C) keys and values.

        Args:
            x: (B, Q, C).
            query: `x` with positions.
            key: keys with positions.
            value: values.
            allowed: (B, 1, Q, N) bool, the keys that each query may attend to; None allows all.
        """
        given = ((self.query, query), (self.key, key), (self.value, value))
        parts = (project(part).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project, part in given)
        found = F.scaled_dot_product_attention(*parts, attn_mask=allowed)
        return x + self.out(found.transpose(1, 2).flatten(2))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    with torch.device('meta'):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = (nn.Parameter(part.detach(), requires_grad=False) for part in (weight, bias))
    return layer


class Mask2FormerPredictor(nn.Module):
    """Mask2Former's head for prediction. It returns the scores and the masks of the last layer only.

    Args:
        head: the head of mmseg. Its submodules are used, not copied.
    """

    def __init__(self, head: Mask2FormerHead) -> None:
        super().__init__()
        self.pixel_decoder = PreparedPixelDecoder(head.pixel_decoder)
        self.encoding, self.level_embed = head.decoder_positional_encoding, head.level_embed
        self.input_projs = head.decoder_input_projs
        self.query_feat, self.query_embed = head.query_feat, head.query_embed
        self.layers, self.post_norm = head.transformer_decoder.layers, head.transformer_decoder.post_norm
        self.cls_embed, self.mask_embed = head.cls_embed, head.mask_embed
        for layer in self.layers:
            layer.cross_attn, layer.self_attn = HeadAttention(layer.cross_attn), HeadAttention(layer.self_attn)
        self._positions: tuple | None = None

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predicts classes and masks.

        Args:
            features: (B, C_i, H/s_i, W/s_i), finest first.

        Returns:
            The class scores (B, Q, K + 1) of Q queries and their mask logits (B, Q, H/s, W/s), both in float32.
        """
        mask_features, maps = self.pixel_decoder(features)
        values = [
            project(level).flatten(2).transpose(1, 2) + embedded
            for project, level, embedded in zip(self.input_projs, maps, self.level_embed.weight, strict=True)
        ]
        keys = [value + place for value, place in zip(values, self._places(maps), strict=True)]
        small = [
            F.interpolate(mask_features, level.shape[2:], mode='bilinear', align_corners=False).flatten(2)
            for level in maps
        ]
        batch = len(mask_features)
        x, embedded = (part.weight.expand(batch, -1, -1) for part in (self.query_feat, self.query_embed))
        for index, layer in enumerate(self.layers):
            level = index % len(maps)
            allowed = self._masked(x, small[level])
            x = layer.norms[0](layer.cross_attn(x, x + embedded, keys[level], values[level], allowed))
            placed = x + embedded
            x = layer.norms[1](layer.self_attn(x, placed, placed, x))
            x = layer.norms[2](layer.ffn(x))
        x = self.post_norm(x)
        masks = torch.einsum('bqc,bchw->bqhw', self.mask_embed(x).float(), mask_features.float())
        return self.cls_embed(x).float(), masks

    def _masked(self, x: Tensor, small: Tensor) -> Tensor:
        """Returns the keys (B, 1, Q, N) inside of each query's mask, or all keys if none is inside."""
        inside = self.mask_embed(self.post_norm(x)) @ small >= 0
        return (inside | ~inside.any(-1, keepdim=True))[:, None]

    def _places(self, maps: Sequence[Tensor]) -> list[Tensor]:
        key = (tuple(level.shape[2:] for level in maps), maps[0].device, maps[0].dtype)
        if self._positions is None or self._positions[0] != key:
            self._positions = (key, [positional_encoding(self.encoding, level.shape[2:], level) for level in maps])
        return self._positions[1]
