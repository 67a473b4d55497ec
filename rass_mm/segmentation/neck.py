"""Neck that projects the diffusion features to one map per stride."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from rass_mm.config.arguments import Count


class NormedConv(nn.Sequential):
    """Convolution without bias, followed by GroupNorm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.GroupNorm(groups, outputs)
        )
        nn.init.kaiming_normal_(self[0].weight, mode='fan_out', nonlinearity='relu')


class BottleneckProjection(nn.Module):
    """Bottleneck residual block with GroupNorm: `relu(shortcut(x) + conv3(relu(conv2(relu(conv1(x))))))`."""

    def __init__(self, inputs: int, width: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.conv1 = NormedConv(inputs, width, 1, groups)
        self.conv2 = NormedConv(width, width, 3, groups)
        self.conv3 = NormedConv(width, outputs, 1, groups)
        self.shortcut = NormedConv(inputs, outputs, 1, groups) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, outputs, H, W)."""
        hidden = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.relu(self.conv3(hidden) + self.shortcut(x))


@MODELS.register_module()
class FeatureProjection(BaseModule):
    """Neck that projects each feature with a bottleneck block and sums the projections of equal stride.

    With the default features of Stable Diffusion 2.1, it has 3.77 million parameters.

    Args:
        in_channels: number of channels of each feature. `RASS` sets it from its backbone.
        in_strides: stride of each feature. `RASS` sets it from its backbone.
        out_channels: number of channels of each output.
        width: number of inner channels of each block.
        num_groups: number of groups of each GroupNorm.
        init_cfg: as in mmengine's modules, e.g. `dict(type='Pretrained', checkpoint=FILE, prefix='neck')`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        out_channels: Count = 512,
        width: Count = 128,
        num_groups: Count = 32,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_strides = list(in_strides)
        self.strides = sorted(set(in_strides))
        self.projections = nn.ModuleList(
            BottleneckProjection(channels, width, out_channels, num_groups) for channels in in_channels
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Projects the features.

        Args:
            features: one (B, C_i, H/s_i, W/s_i) tensor per feature.

        Returns:
            One (B, out_channels, H/s, W/s) tensor per stride s, finest first.
        """
        sums: dict[int, Tensor] = {}
        for feature, block, stride in zip(features, self.projections, self.in_strides, strict=True):
            projected = block(feature)
            sums[stride] = sums[stride] + projected if stride in sums else projected
        return tuple(sums[stride] for stride in self.strides)
