"""Mask2Former's head as published (arXiv 2112.01527), computed from tensors under their published names.

Written from the paper and the published layout; shares no code with mmdet's head, against which it stands in the tests.
"""

import math

import torch
import torch.nn.functional as F

PIXEL, PREDICTOR = 'sem_seg_head.pixel_decoder.', 'sem_seg_head.predictor.'


def head_shapes(inputs, width, encoder_ffn, decoder_ffn, heads, layers, queries, classes, levels=3, points=4):
    """Published name -> shape of every tensor of the head; `layers` = (encoder's, decoder's)."""
    shapes = {}

    def linear(name, out, into):
        shapes.update({f'{name}.weight': (out, into), f'{name}.bias': (out,)})

    def norm(name):
        shapes.update({f'{name}.weight': (width,), f'{name}.bias': (width,)})

    for level in range(levels):
        shapes[f'{PIXEL}input_proj.{level}.0.weight'] = (width, inputs, 1, 1)
        shapes[f'{PIXEL}input_proj.{level}.0.bias'] = (width,)
        norm(f'{PIXEL}input_proj.{level}.1')
    shapes[f'{PIXEL}transformer.level_embed'] = (levels, width)
    for index in range(layers[0]):
        layer = f'{PIXEL}transformer.encoder.layers.{index}.'
        linear(f'{layer}self_attn.sampling_offsets', heads * levels * points * 2, width)
        linear(f'{layer}self_attn.attention_weights', heads * levels * points, width)
        linear(f'{layer}self_attn.value_proj', width, width)
        linear(f'{layer}self_attn.output_proj', width, width)
        linear(f'{layer}linear1', encoder_ffn, width)
        linear(f'{layer}linear2', width, encoder_ffn)
        norm(f'{layer}norm1')
        norm(f'{layer}norm2')
    shapes[f'{PIXEL}mask_features.weight'], shapes[f'{PIXEL}mask_features.bias'] = (width, width, 1, 1), (width,)
    for name, into, kernel in (('adapter_1', inputs, 1), ('layer_1', width, 3)):
        shapes[f'{PIXEL}{name}.weight'] = (width, into, kernel, kernel)
        norm(f'{PIXEL}{name}.norm')
    for index in range(layers[1]):
        for kind, inner in (('self', 'self_attn'), ('cross', 'multihead_attn')):
            layer = f'{PREDICTOR}transformer_{kind}_attention_layers.{index}.'
            shapes[f'{layer}{inner}.in_proj_weight'] = (3 * width, width)
            shapes[f'{layer}{inner}.in_proj_bias'] = (3 * width,)
            linear(f'{layer}{inner}.out_proj', width, width)
            norm(f'{layer}norm')
        layer = f'{PREDICTOR}transformer_ffn_layers.{index}.'
        linear(f'{layer}linear1', decoder_ffn, width)
        linear(f'{layer}linear2', width, decoder_ffn)
        norm(f'{layer}norm')
    norm(f'{PREDICTOR}decoder_norm')
    for name, rows in (('query_feat', queries), ('query_embed', queries), ('level_embed', levels)):
        shapes[f'{PREDICTOR}{name}.weight'] = (rows, width)
    linear(f'{PREDICTOR}class_embed', classes + 1, width)
    for index in range(3):
        linear(f'{PREDICTOR}mask_embed.layers.{index}', width, width)
    return shapes


class PublishedHead:
    """Class scores and masks of every decoder stage, from published tensors."""

    def __init__(self, tensors, heads, groups=32):
        self.t, self.heads, self.groups = tensors, heads, groups

    def count(self, start):
        return len({key[len(start) :].split('.')[0] for key in self.t if key.startswith(start)})

    def linear(self, x, name):
        return F.linear(x, self.t[f'{name}.weight'], self.t[f'{name}.bias'])

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.t[f'{name}.weight'], self.t[f'{name}.bias'])

    def conv(self, x, name, norm):
        weight, bias = self.t[f'{name}.weight'], self.t.get(f'{name}.bias')
        x = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return F.group_norm(x, self.groups, self.t[f'{norm}.weight'], self.t[f'{norm}.bias'])

    @staticmethod
    def positions(x):
        """Normalised sine encoding (1, C, H, W), y first."""
        _, channels, height, width = x.shape
        half = channels // 2
        period = 10000 ** (2 * (torch.arange(half) // 2) / half)
        parts = []
        for axis, length in ((0, height), (1, width)):
            place = torch.arange(1, length + 1) / (length + 1e-6) * 2 * math.pi
            angle = place[:, None] / period
            code = torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], -1).flatten(1)
            shape = (height, 1, half) if axis == 0 else (1, width, half)
            parts.append(code.reshape(shape).expand(height, width, half))
        return torch.cat(parts, -1).permute(2, 0, 1)[None].float()

    def deformable(self, query, memory, shapes, points, name):
        """Multi-scale deformable attention of (B, N, C) queries at reference `points` (N, 2) in (x, y)."""
        batch, count, width = query.shape
        value = self.linear(memory, f'{name}.value_proj').unflatten(-1, (self.heads, -1))
        offsets = self.linear(query, f'{name}.sampling_offsets').view(batch, count, self.heads, len(shapes), -1, 2)
        weights = self.linear(query, f'{name}.attention_weights').view(batch, count, self.heads, -1).softmax(-1)
        weights = weights.view(batch, count, self.heads, len(shapes), -1)
        out = torch.zeros(batch, count, self.heads, width // self.heads)
        start = 0
        for level, (height, columns) in enumerate(shapes):
            part = value[:, start : start + height * columns].permute(0, 2, 3, 1).flatten(0, 1)
            start += height * columns
            place = points[None, :, None, None] + offsets[:, :, :, level] / torch.tensor([columns, height])
            grid = (2 * place - 1).transpose(1, 2).flatten(0, 1)
            picked = F.grid_sample(part.unflatten(-1, (height, columns)), grid, align_corners=False)
            picked = picked.unflatten(0, (batch, self.heads)).permute(0, 3, 1, 4, 2)
            out += (picked * weights[:, :, :, level, :, None]).sum(3)
        return self.linear(out.flatten(2), f'{name}.output_proj')

    def pixel_decoder(self, features):
        """Features at strides 4, 8, 16, 32 to mask features and the three levels, coarsest first."""
        fine, levels = features[0], features[:0:-1]
        sources = [self.conv(x, f'{PIXEL}input_proj.{i}.0', f'{PIXEL}input_proj.{i}.1') for i, x in enumerate(levels)]
        shapes = [tuple(x.shape[2:]) for x in sources]
        embed = self.t[f'{PIXEL}transformer.level_embed']
        where = torch.cat([(self.positions(x) + embed[i][:, None, None]).flatten(2) for i, x in enumerate(sources)], 2)
        where, x = where.transpose(1, 2), torch.cat([x.flatten(2) for x in sources], 2).transpose(1, 2)
        centres = [
            torch.stack(torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing='xy'), -1)
            for h, w in shapes
        ]
        points = torch.cat([grid.flatten(0, 1) for grid in centres])
        for index in range(self.count(f'{PIXEL}transformer.encoder.layers.')):
            name = f'{PIXEL}transformer.encoder.layers.{index}.'
            x = self.norm(x + self.deformable(x + where, x, shapes, points, f'{name}self_attn'), f'{name}norm1')
            x = self.norm(x + self.linear(self.linear(x, f'{name}linear1').relu(), f'{name}linear2'), f'{name}norm2')
        parts = x.transpose(1, 2).split([h * w for h, w in shapes], 2)
        out = [part.unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]
        lateral = self.conv(fine, f'{PIXEL}adapter_1', f'{PIXEL}adapter_1.norm')
        top = F.interpolate(out[-1], lateral.shape[2:], mode='bilinear', align_corners=False)
        merged = self.conv(lateral + top, f'{PIXEL}layer_1', f'{PIXEL}layer_1.norm').relu()
        return F.conv2d(merged, self.t[f'{PIXEL}mask_features.weight'], self.t[f'{PIXEL}mask_features.bias']), out

    def attention(self, query, key, value, name, mask=None):
        """Plain multi-head attention of (B, N, C); `mask` (B, Q, N) is True where looking is forbidden."""
        weight, bias = self.t[f'{name}.in_proj_weight'].chunk(3), self.t[f'{name}.in_proj_bias'].chunk(3)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weight, bias, strict=True)
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(mask[:, None], -math.inf)
        return self.linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), f'{name}.out_proj')

    def stage(self, x, masks, size):
        """Scores (B, Q, K+1), masks (B, Q, h, w) and where the next layer must not look."""
        x = self.norm(x, f'{PREDICTOR}decoder_norm')
        inner = x
        for index in range(3):
            inner = self.linear(inner, f'{PREDICTOR}mask_embed.layers.{index}')
            inner = inner.relu() if index < 2 else inner
        logits = torch.einsum('bqc,bchw->bqhw', inner, masks)
        hidden = F.interpolate(logits, size, mode='bilinear', align_corners=False).flatten(2).sigmoid() < 0.5
        return self.linear(x, f'{PREDICTOR}class_embed'), logits, hidden & ~hidden.all(-1, keepdim=True)

    def __call__(self, features):
        masks, levels = self.pixel_decoder(features)
        batch = len(masks)
        where = [self.positions(x).flatten(2).transpose(1, 2) for x in levels]
        embed = self.t[f'{PREDICTOR}level_embed.weight']
        memory = [x.flatten(2).transpose(1, 2) + embed[i] for i, x in enumerate(levels)]
        sizes = [tuple(x.shape[2:]) for x in levels]
        x, place = (self.t[f'{PREDICTOR}{name}.weight'].expand(batch, -1, -1) for name in ('query_feat', 'query_embed'))
        outputs = [self.stage(x, masks, sizes[0])]
        for index in range(self.count(f'{PREDICTOR}transformer_ffn_layers.')):
            level, name = index % len(levels), f'{PREDICTOR}transformer_cross_attention_layers.{index}'
            seen = self.attention(
                x + place, memory[level] + where[level], memory[level], f'{name}.multihead_attn', outputs[-1][2]
            )
            x = self.norm(x + seen, f'{name}.norm')
            name = f'{PREDICTOR}transformer_self_attention_layers.{index}'
            x = self.norm(x + self.attention(x + place, x + place, x, f'{name}.self_attn'), f'{name}.norm')
            name = f'{PREDICTOR}transformer_ffn_layers.{index}'
            x = self.norm(x + self.linear(self.linear(x, f'{name}.linear1').relu(), f'{name}.linear2'), f'{name}.norm')
            outputs.append(self.stage(x, masks, sizes[(index + 1) % len(levels)]))
        return outputs


def projected(features, tensors, prefix, own, target, groups):
    """The released projections: resize to the stride, bottleneck block, sum of one stride; finest first."""
    sums = {}
    for index, feature in enumerate(features):
        size = [side * own[index] // target[index] for side in feature.shape[-2:]]
        x = (
            F.interpolate(feature, size=size, mode='bilinear', align_corners=False)
            if own[index] != target[index]
            else feature
        )

        def block(x, name, index=index):
            name = f'{prefix}feature_projections.{index}.0.{name}'
            weight = tensors[f'{name}.weight']
            x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
            return F.group_norm(x, groups, tensors[f'{name}.norm.weight'], tensors[f'{name}.norm.bias'])

        shortcut = f'{prefix}feature_projections.{index}.0.shortcut.weight' in tensors
        inner = block(block(block(x, 'conv1').relu(), 'conv2').relu(), 'conv3')
        y = (inner + (block(x, 'shortcut') if shortcut else x)).relu()
        sums[target[index]] = sums[target[index]] + y if target[index] in sums else y
    return [sums[stride] for stride in sorted(sums)]
