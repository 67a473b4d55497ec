"""Layers with packed weights, compared with PyTorch's own."""

import pytest
import torch
from mmcv.cnn.bricks import wrappers
from torch import nn

from rass_mm.engine.packing import PackedConv2d, PackedLinear, can_pack, pack, unregistered

pytestmark = pytest.mark.skipif(not can_pack(), reason='this build of PyTorch has no packed layers')


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    'options',
    [
        {'kernel_size': 3, 'padding': 1},
        {'kernel_size': 3, 'stride': 2},
        {'kernel_size': 1, 'bias': False},
        {'kernel_size': 3, 'padding': 2, 'dilation': 2, 'groups': 4},
    ],
)
def test_convolutions_of_any_size_are_equal(options, dtype):
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 64, **options).to(dtype).requires_grad_(False)
    packed = PackedConv2d(layer)
    for size in ((1, 8, 8), (2, 65, 33), (3, 128, 5)):
        images = torch.randn(size[0], 32, *size[1:]).to(dtype)
        for given in (images, images.contiguous(memory_format=torch.channels_last)):
            expected, found = layer(given).float(), packed(given)
            assert found.dtype is dtype and found.shape == expected.shape
            assert (found.float() - expected).abs().max() <= (1e-5 if dtype is torch.float32 else 2e-2)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_linear_layers_are_equal(dtype):
    torch.manual_seed(0)
    for bias in (True, False):
        layer = nn.Linear(40, 24, bias=bias).to(dtype).requires_grad_(False)
        packed = PackedLinear(layer)
        for tokens in (torch.randn(7, 40), torch.randn(2, 5, 40), torch.randn(40, 9, 2).permute(2, 1, 0)):
            found, expected = packed(tokens.to(dtype)).float(), layer(tokens.to(dtype)).float()
            assert (found - expected).abs().max() <= (1e-5 if dtype is torch.float32 else 2e-2)


class Special(nn.Linear):
    """Layer that a packed layer must not replace."""


def test_only_plain_layers_of_the_dtype_are_replaced():
    model = nn.ModuleDict(
        {
            'plain': nn.Conv2d(3, 3, 1),
            'wrapped': wrappers.Conv2d(3, 3, 1),
            'wrapped_too': wrappers.Linear(3, 3),
            'other': nn.Linear(3, 3).bfloat16(),
            'special': Special(3, 3),
            'mirrored': nn.Conv2d(3, 3, 3, padding=1, padding_mode='reflect'),
            'same': nn.Conv2d(3, 3, 3, padding='same'),
            'attention': nn.MultiheadAttention(4, 2),
            'deeper': nn.Sequential(nn.Linear(3, 3)),
        }
    ).requires_grad_(False)
    outside = nn.Sequential(nn.Linear(3, 3)).requires_grad_(False)
    object.__setattr__(model, 'outside', outside)
    pack(model, torch.float32)
    packed = {name for name, part in model.named_modules() if isinstance(part, PackedConv2d | PackedLinear)}
    assert packed == {'plain', 'wrapped', 'wrapped_too', 'deeper.0'}
    assert isinstance(outside[0], PackedLinear) and unregistered(model) == [outside]
    model['attention'](*[torch.zeros(1, 1, 4)] * 3)
