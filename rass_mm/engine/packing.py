"""Convolutions and linear layers with weights in the layout of the CPU's kernels.

PyTorch reorders the weights of a convolution in each call. For SD 2.1's convolutions with 1,280 channels, a single call
takes 3 times as long as with packed weights for a map of 8x8, and 1.5 times as long for 16x16 (float32, one Zen 4
core). Linear layers become about 1.2 times faster. The operators are those that the graphs of `torch.compile` call with
frozen weights (`torch._inductor.config.freezing`). They are called directly here, because compilation takes minutes.
"""

import torch
from torch import Tensor, nn

WRAPPERS = 'mmcv.cnn.bricks.wrappers'
"""Module of mmcv with subclasses that compute the same. It is not imported here, because a restorer needs no mmcv."""
DTYPES = (torch.float32, torch.bfloat16)
HINT = 32
"""Side of the feature map for which the layout is chosen; other sizes are supported."""


def can_pack() -> bool:
    """Returns whether this build of PyTorch has the operators for packed weights, on this machine."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_convolution_pointwise')


@torch.no_grad()
def pack(module: nn.Module, dtype: torch.dtype) -> None:
    """Replaces the convolutions and linear layers inside a module on the CPU by packed ones, in place.

    Args:
        module: the module. Modules that are attributes of it without being registered are searched too.
        dtype: only layers with weights of this dtype are replaced.
    """
    for name, child in module.named_children():
        if _computes(child, nn.Conv2d) and _suits(child, dtype) and _has_numbers(child):
            setattr(module, name, PackedConv2d(child))
        elif _computes(child, nn.Linear) and _suits(child, dtype):
            setattr(module, name, PackedLinear(child))
        else:
            pack(child, dtype)
    for child in unregistered(module):
        pack(child, dtype)


def unregistered(module: nn.Module) -> list[nn.Module]:
    """Returns the modules that are attributes of a module, but not its submodules."""
    return [value for value in vars(module).values() if isinstance(value, nn.Module)]


def _computes(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Returns whether a layer computes the same as `kind`. Other subclasses of it may compute something else."""
    found = type(layer)
    return found is kind or (found.__module__, found.__name__) == (WRAPPERS, kind.__name__)


def _suits(layer: nn.Module, dtype: torch.dtype) -> bool:
    hooked = layer._forward_hooks or layer._forward_pre_hooks or 'forward' in vars(layer)
    return not hooked and layer.weight.device.type == 'cpu' and layer.weight.dtype is dtype and dtype in DTYPES


def _has_numbers(layer: nn.Conv2d) -> bool:
    """Returns whether a convolution pads with zeros by numbers of pixels, not by 'same'."""
    return layer.padding_mode == 'zeros' and not isinstance(layer.padding, str)


class PackedConv2d(nn.Module):
    """Convolution with a packed weight. Its output has the channels-last layout.

    Args:
        layer: the convolution to replace.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = layer.in_channels, layer.out_channels, layer.kernel_size
        self.stride, self.padding, self.dilation = map(list, (layer.stride, layer.padding, layer.dilation))
        self.groups = layer.groups
        how = (self.padding, self.stride, self.dilation, self.groups)
        weight = layer.weight.detach().contiguous()
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *how, [1, layer.in_channels, HINT, HINT])
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, h, w)."""
        how = (self.padding, self.stride, self.dilation, self.groups, 'none', [], '')
        return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *how)


class PackedLinear(nn.Module):
    """Linear layer with a packed weight.

    Args:
        layer: the linear layer to replace.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().contiguous())
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., in_features) to (..., out_features)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, 'none', [], '')
