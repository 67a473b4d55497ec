"""LPIPS training loss compared with direct calls of the lpips library with the same weights."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torchvision

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
lpips = pytest.importorskip('lpips', reason='lpips (rass_mm[restoration]) is not installed')

from rass_mm.errors import ConfigError, DataError, InstallationError  # noqa: E402 - after the checks
from rass_mm.restoration.losses.perceptual import BACKBONES, LPIPSLoss  # noqa: E402

IMAGES = torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1


def features(net):
    """Returns torchvision's feature layers with random weights of reasonable scale."""
    with torch.device('meta'):
        layers = getattr(torchvision.models, BACKBONES[net][1])().features
    layers.to_empty(device='cpu')
    generator = torch.Generator().manual_seed(1)
    for parameter in layers.parameters():
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.05
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return layers


@pytest.fixture(scope='module', params=['vgg', 'squeeze'])
def net(request, tmp_path_factory):
    """Network name, weight file in torchvision's format, and the library's LPIPS with these weights."""
    layers, file = features(request.param), tmp_path_factory.mktemp('hub') / BACKBONES[request.param][0]
    state = {f'features.{key}': value for key, value in layers.state_dict().items()}
    torch.save({**state, 'classifier.6.weight': torch.zeros(3, 3)}, file)
    with pytest.MonkeyPatch.context() as patch:
        models = lpips.pretrained_networks.tv
        patch.setattr(models, BACKBONES[request.param][1], lambda **_: SimpleNamespace(features=layers))
        reference = lpips.LPIPS(net=request.param, pnet_rand=True, verbose=False)
    return SimpleNamespace(name=request.param, file=file, reference=reference)


def test_loss_and_gradient_equal_the_library(net):
    loss = LPIPSLoss(loss_weight=2.0, net=net.name, weights=net.file)
    mine, other = (IMAGES[0].clone().requires_grad_() for _ in range(2))
    value, expected = loss(mine, IMAGES[1]), 2 * net.reference(other, IMAGES[1]).mean()
    value.backward()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5) and value.item() > 0.01
    largest = other.grad.abs().max().item()
    assert largest > 0
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4 * largest)
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    trained = loss.train()(IMAGES[0], IMAGES[1])  # the library's dropout stays off
    assert trained.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss(IMAGES[1], IMAGES[1]).item() == 0


def test_missing_weights_say_which_file_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    for given, place in ((None, tmp_path / 'checkpoints' / 'vgg16-397923af.pth'), (tmp_path / 'a', tmp_path / 'a')):
        with pytest.raises(DataError) as caught:
            build_vgg(given, monkeypatch)
        for part in (f'{place} does not exist', 'losses.perceptual.weights=', 'losses.perceptual=None', 'vgg16'):
            assert part in str(caught.value)


def build_vgg(weights, monkeypatch):
    """Builds the loss with VGG layers on the meta device, which need no random initialization."""
    with torch.device('meta'):
        layers = torchvision.models.vgg16().features
    monkeypatch.setattr(lpips.pretrained_networks.tv, 'vgg16', lambda **_: SimpleNamespace(features=layers))
    return LPIPSLoss(net='vgg', weights=weights)


@pytest.mark.parametrize('fault', ['truncated', 'text', 'another network'])
def test_damaged_weights_are_refused(tmp_path, monkeypatch, fault):
    file = tmp_path / 'vgg.pth'
    state = {f'features.{key}': value for key, value in features('squeeze').state_dict().items()}
    torch.save(state, file)
    if fault == 'truncated':
        file.write_bytes(file.read_bytes()[:-1000])
    elif fault == 'text':
        file.write_text('<html>not found</html>')
    with pytest.raises(DataError, match='has no usable weights of vgg16'):
        build_vgg(file, monkeypatch)


def test_another_network_is_refused():
    with pytest.raises(ConfigError, match="net is 'resnet'. Set it to one of vgg, alex, squeeze"):
        LPIPSLoss(net='resnet')


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', None)
    with pytest.raises(InstallationError, match=r'rass_mm\[restoration\]'):
        LPIPSLoss()
