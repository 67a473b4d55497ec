"""LPIPS as a training loss, by the lpips library, from local weights."""

import os
from pathlib import Path

import torch
from mmagic.registry import MODELS
from torch import Tensor, nn

from rass_mm.errors import ConfigError, DataError, InstallationError

BACKBONES = {
    'vgg': ('vgg16-397923af.pth', 'vgg16'),
    'alex': ('alexnet-owt-7be5be79.pth', 'alexnet'),
    'squeeze': ('squeezenet1_1-b8a52dc0.pth', 'squeezenet1_1'),
}
"""Network -> torchvision's file name of its ImageNet weights, and its name there."""


@MODELS.register_module()
class LPIPSLoss(nn.Module):
    """Learned perceptual distance (Zhang et al. 2018, arXiv 1801.03924), version 0.1 of its linear weights.

    The library carries the linear weights; the ImageNet weights of the network below them are torchvision's, and are
    read from a local file: nothing is downloaded here.

    Args:
        loss_weight: lambda_lpips.
        net: 'vgg', 'alex' or 'squeeze'.
        weights: file of the network's ImageNet weights; None looks where torch.hub keeps downloaded ones.

    Raises:
        ConfigError: another network.
        InstallationError: the library is not installed.
        DataError: the weights are missing or damaged.
    """

    def __init__(self, loss_weight: float = 2.0, net: str = 'vgg', weights: str | os.PathLike | None = None) -> None:
        super().__init__()
        if net not in BACKBONES:
            raise ConfigError(f'LPIPSLoss: net is {net!r}; one of {", ".join(BACKBONES)} is needed.')
        self.loss_weight = loss_weight
        self.network = load_lpips(net, weights)

    def train(self, mode: bool = True) -> 'LPIPSLoss':
        """Leaves the network in eval mode: in training mode the library drops half of its linear layers' inputs."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Mean distance of (B, 3, H, W) RGB images in [-1, 1]; weighted."""
        with torch.autocast(restored.device.type, enabled=False):
            return self.loss_weight * self.network(restored.float(), clean.float()).mean()


def load_lpips(net: str, weights: str | os.PathLike | None = None) -> nn.Module:
    """The frozen LPIPS network in eval mode; see `LPIPSLoss`."""
    try:
        import lpips
    except ImportError:
        raise InstallationError('The LPIPS loss needs the lpips library: pip install "rass_mm[restoration]".') from None
    # pnet_rand leaves the backbone random, which keeps the library from downloading it.
    network = lpips.LPIPS(net=net, version='0.1', pnet_rand=True, verbose=False)
    if torch.get_default_device().type != 'meta':
        _load_backbone(network.net, net, Path(weights) if weights else _hub_file(net))
    return network.requires_grad_(False).eval()


def _hub_file(net: str) -> Path:
    return Path(torch.hub.get_dir()) / 'checkpoints' / BACKBONES[net][0]


def _load_backbone(backbone: nn.Module, net: str, file: Path) -> None:
    name, model = BACKBONES[net]
    how = (
        f'Get it where there is a network, e.g. by python -c "import torchvision; torchvision.models.{model}('
        f"weights='IMAGENET1K_V1')\", and put it there, or set losses.perceptual.weights=/path/{name}; or switch the "
        f'loss off with losses.perceptual=None.'
    )
    if not file.is_file():
        raise DataError(f'The LPIPS loss needs the ImageNet weights of {model}, but {file} does not exist. {how}')
    try:
        state = torch.load(file, map_location='cpu', weights_only=True)
        features = {key.removeprefix('features.'): value for key, value in state.items() if key.startswith('features.')}
        own = backbone.state_dict()
        # lpips cuts torchvision's features into slices and keeps their numbers: slice2.5.weight is features.5.weight.
        backbone.load_state_dict({key: features[key.split('.', 1)[1]] for key in own})
    except Exception as error:
        raise DataError(f'{file} holds no usable weights of {model} ({type(error).__name__}: {error}). {how}') from None
