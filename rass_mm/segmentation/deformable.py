"""Multi-scale deformable attention without mmcv's operator, for CPUs, for bfloat16 and for export.

mmcv's operator exists for CUDA only, has no bfloat16 kernel, and keeps the sizes of the feature maps in tensors, which
tracers do not support. Here, sizes are Python integers, and nothing depends on values.

On a CPU, bilinear sampling and the sum over the points of a query are one weighted sum of the rows of `value`, which is
`F.embedding_bag`. At 512x512 pixels, this takes 10 ms per layer, and mmcv's form for CPUs 140 ms (one Zen 4 core).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch import Tensor, nn

Shapes = Sequence[tuple[int, int]]
"""Height and width of each level."""


class Levels(Sequence):
    """Shapes of the levels (`Shapes`) with the tensors that depend on them, which are copied to the device once.

    Args:
        shapes: height and width of each of the L levels.
        device: device of the tensors.

    Attributes:
        extents: (L, 2) float32, width and height of each level.
        sizes: (L, 2) int64, height and width of each level.
        starts: (L,) int64, index of the first row of each level.
    """

    def __init__(self, shapes: Shapes, device: torch.device) -> None:
        self.shapes = tuple(shapes)
        self.sizes = torch.tensor(self.shapes, device=device)
        self.starts = torch.tensor(level_starts(shapes), device=device)
        self.extents = self.sizes.flip(1).float()

    def __getitem__(self, index: Any) -> Any:
        return self.shapes[index]

    def __len__(self) -> int:
        return len(self.shapes)


def deformable_attention(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Computes multi-scale deformable attention with the form that suits the device and the dtype.

    Args:
        value: (B, S, heads, d) projected features of all levels, row by row, with S the sum of h * w over the levels.
        shapes: height and width (h, w) of each of the L levels. `Levels` avoid copies to the device in each call.
        locations: (B, Q, heads, L, P, 2) sampling points (x, y), in [0, 1] inside of the map.
        weights: (B, Q, heads, L, P) weights of the points.

    Returns:
        (B, Q, heads * d).
    """
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if value.is_cuda and not tracing:
        return operator_form(value, shapes, locations, weights)
    form = grid_form if tracing or value.device.type != 'cpu' else bag_form
    return form(value, shapes, locations, weights)


def operator_form(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Computes `deformable_attention` with mmcv's CUDA operator, in float32."""
    levels = shapes if isinstance(shapes, Levels) else Levels(shapes, value.device)
    given = (levels.sizes, levels.starts, locations.float(), weights.float(), 64)
    return MultiScaleDeformableAttnFunction.apply(value.float(), *given).to(value.dtype)


def level_starts(shapes: Shapes) -> list[int]:
    """Returns the index of the first row of `value` of each level."""
    return [sum(height * width for height, width in shapes[:level]) for level in range(len(shapes))]


def grid_form(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Computes `deformable_attention` with one `grid_sample` per level, which all export formats support.

    Sampling is in float32, because bfloat16 cannot represent positions in a map exactly enough.
    """
    batch, queries, heads, _, points, _ = locations.shape
    grids = (2 * locations.float() - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    parts = value.float().split([height * width for height, width in shapes], 1)
    total = None
    for level, (part, (height, width)) in enumerate(zip(parts, shapes, strict=True)):
        image = part.permute(0, 2, 3, 1).reshape(batch * heads, -1, height, width)
        sampled = F.grid_sample(image, grids[level], align_corners=False)
        weight = weights[:, :, :, level].transpose(1, 2).reshape(batch * heads, 1, queries, points)
        summed = (sampled * weight).sum(-1)
        total = summed if total is None else total + summed
    return total.reshape(batch, -1, queries).transpose(1, 2).to(value.dtype)


def bag_form(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Computes `deformable_attention` as a weighted sum of the four neighbours of each point, with `embedding_bag`."""
    batch, total, heads, _ = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    numbers = ([height for height, _ in shapes], [width for _, width in shapes], level_starts(shapes))
    heights, widths, starts = (torch.tensor(part, dtype=torch.float32).repeat_interleave(points) for part in numbers)
    x, y = locations.float().flatten(3, 4).unbind(-1)
    columns, rows = _neighbours(x, widths), _neighbours(y, heights)
    # The row of `value` of image b, cell s and head h is (b * S + s) * heads + h.
    first = (torch.arange(batch).reshape(-1, 1, 1) * total * heads + torch.arange(heads))[..., None]
    weights = weights.float().flatten(3)
    index, share = [], []
    for row, row_share in rows:
        row_share, start = row_share * weights, (row * widths + starts) * heads + first
        for column, column_share in columns:
            index.append((start + column * heads).int())
            share.append(row_share * column_share)
    bags = batch * queries * heads
    index, share = (torch.cat(parts, -1).reshape(bags, -1) for parts in (index, share))
    table = value.reshape(batch * total * heads, -1)
    summed = F.embedding_bag(index, table, per_sample_weights=share.to(table.dtype), mode='sum')
    return summed.reshape(batch, queries, -1)


def _neighbours(place: Tensor, sizes: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Returns the two neighbouring cells of places in [0, 1], and the bilinear share of each.

    Cells outside of the map are moved inside, and their share is 0.
    """
    place = place * sizes - 0.5
    low = place.floor()
    found = []
    for cell, share in ((low, 1 + low - place), (low + 1, place - low)):
        inside = cell.clamp(min=0).minimum(sizes - 1)
        found.append((inside, share * (inside == cell)))
    return found


class DeformableAttention(nn.Module):
    """Self-attention over several levels with the weights of mmcv's layer, for prediction.

    Args:
        layer: the layer of mmcv. Its submodules are used, not copied.
    """

    def __init__(self, layer: MultiScaleDeformableAttention) -> None:
        super().__init__()
        self.heads, self.levels, self.points = layer.num_heads, layer.num_levels, layer.num_points
        self.sampling_offsets, self.attention_weights = layer.sampling_offsets, layer.attention_weights
        self.value_proj, self.output_proj = layer.value_proj, layer.output_proj

    def forward(self, tokens: Tensor, positions: Tensor, references: Tensor, levels: Levels) -> Tensor:
        """Applies the layer with its residual connection.

        Args:
            tokens: (B, S, C) features of all levels, row by row.
            positions: (1, S, C) positional encoding.
            references: (S, 2) position (x, y) of each token in its map, in [0, 1].
            levels: the levels.

        Returns:
            (B, S, C).
        """
        query = tokens + positions
        size = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*size, 2)).float()
        weights = self.attention_weights(query).unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, size[1:])
        locations = references[:, None, None, None] + offsets / levels.extents[:, None]
        value = self.value_proj(tokens).unflatten(-1, (self.heads, -1))
        return tokens + self.output_proj(deformable_attention(value, levels, locations, weights))
