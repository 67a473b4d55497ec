"""LPIPS training loss, computed by the lpips library with local weights."""

import os
from pathlib import Path

import torch
from mmagic.registry import MODELS
from torch import Tensor, nn

from rass_mm.config.arguments import NotNegative
from rass_mm.errors import ConfigError, DataError, InstallationError

BACKBONES = {
    'vgg': ('vgg16-397923af.pth', 'vgg16'),
    'alex': ('alexnet-owt-7be5be79.pth', 'alexnet'),
    'squeeze': ('squeezenet1_1-b8a52dc0.pth', 'squeezenet1_1'),
}
"""Network -> file name of torchvision's ImageNet weights, and torchvision's model name."""


@MODELS.register_module()
class LPIPSLoss(nn.Module):
    """Learned perceptual distance LPIPS (Zhang et al. 2018, arXiv 1801.03924) between restored and clean images.

    The lpips library includes the linear weights (version 0.1). The ImageNet weights of the backbone are those of
    torchvision and are read from a local file; nothing is downloaded.

    Args:
        loss_weight: weight of the loss, lambda_lpips.
        net: name of the backbone: 'vgg', 'alex' or 'squeeze'.
        weights: file with the ImageNet weights of the backbone; None uses the cache of torch.hub.

    Raises:
        ConfigError: the network is unknown.
        InstallationError: the library is not installed.
        DataError: the weights are missing or damaged.
    """

    def __init__(
        self, loss_weight: NotNegative = 2.0, net: str = 'vgg', weights: str | os.PathLike | None = None
    ) -> None:
        super().__init__()
        if net not in BACKBONES:
            raise ConfigError(f'LPIPSLoss: net is {net!r}. Set it to one of {", ".join(BACKBONES)}.')
        self.loss_weight = loss_weight
        self.network = load_lpips(net, weights)

    def train(self, mode: bool = True) -> 'LPIPSLoss':
        """Keeps the network in eval mode, because in training mode the library applies dropout to its features."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Computes the weighted mean distance between two batches of (B, 3, H, W) RGB images in [-1, 1]."""
        with torch.autocast(restored.device.type, enabled=False):
            return self.loss_weight * self.network(restored.float(), clean.float()).mean()


def load_lpips(net: str, weights: str | os.PathLike | None = None) -> nn.Module:
    """Loads the frozen LPIPS network in eval mode, see `LPIPSLoss`."""
    try:
        import lpips
    except ImportError:
        raise InstallationError(
            'The LPIPS loss needs the library lpips. Install it with: pip install "rass_mm[restoration]"'
        ) from None
    # pnet_rand initializes the backbone randomly, so that the library does not download it.
    network = lpips.LPIPS(net=net, version='0.1', pnet_rand=True, verbose=False)
    if torch.get_default_device().type != 'meta':
        _load_backbone(network.net, net, Path(weights) if weights else _hub_file(net))
    return network.requires_grad_(False).eval()


def _hub_file(net: str) -> Path:
    return Path(torch.hub.get_dir()) / 'checkpoints' / BACKBONES[net][0]


def _load_backbone(backbone: nn.Module, net: str, file: Path) -> None:
    name, model = BACKBONES[net]
    how = (
        f'Download them, e.g. with python -c "import torchvision; torchvision.models.{model}('
        f"weights='IMAGENET1K_V1')\", and put the file there, or set losses.perceptual.weights=/path/{name}. To "
        f'disable the loss, set losses.perceptual=None.'
    )
    if not file.is_file():
        raise DataError(f'The LPIPS loss needs the ImageNet weights of {model}, but {file} does not exist. {how}')
    try:
        state = torch.load(file, map_location='cpu', weights_only=True)
        features = {key.removeprefix('features.'): value for key, value in state.items() if key.startswith('features.')}
        own = backbone.state_dict()
        # lpips splits torchvision's features into slices but keeps the indices: slice2.5.weight is features.5.weight.
        backbone.load_state_dict({key: features[key.split('.', 1)[1]] for key in own})
    except Exception as error:
        raise DataError(f'{file} has no usable weights of {model} ({type(error).__name__}: {error}). {how}') from None
