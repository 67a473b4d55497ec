"""The linear start of the small autoencoder: what it codes, what it decodes, and that it is the same every time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from rass_mm.demo.base.linear_start import principal_components, start_linear
from rass_mm.demo.scenes.generator import make_scene
from rass_mm.diffusion.known_bases import LAYOUTS

CHANNELS = LAYOUTS['scenes-tiny']['vae']['latent_channels']


@pytest.fixture(scope='module')
def images():
    scenes = [make_scene(seed, 64, 64)[0] for seed in range(6)]
    return torch.from_numpy(np.stack(scenes)[..., ::-1].copy()).permute(0, 3, 1, 2)


@pytest.fixture(scope='module')
def vae(images):
    return started(images)


def started(images):
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(LAYOUTS['scenes-tiny']['vae']).eval()
    start_linear(vae, images, torch.Generator().manual_seed(0))
    return vae


def patches(images):
    """(48, positions): the 4x4 patches of [-1, 1] images as (channel, y, x) columns."""
    return F.unfold(images.float() / 127.5 - 1, 4, stride=4).transpose(0, 1).flatten(1)


def test_components_are_those_of_a_singular_value_decomposition(images):
    directions, spreads = principal_components(images, CHANNELS, torch.Generator().manual_seed(0))
    columns = patches(images).double()
    columns -= columns.mean(1, keepdim=True)
    vectors, values, _ = torch.linalg.svd(columns, full_matrices=False)
    expected = values[:CHANNELS] / (columns.shape[1] - 1) ** 0.5
    torch.testing.assert_close(spreads.double(), expected, rtol=0.15, atol=1e-3)  # of patches drawn at random
    mine = directions.permute(0, 3, 1, 2).flatten(1).double()
    torch.testing.assert_close(mine @ mine.T, torch.eye(CHANNELS).double(), rtol=0, atol=1e-5)
    assert (mine[0] @ vectors[:, 0]).abs() > 0.99
    kept = (mine @ columns).square().sum() / columns.square().sum()
    best = values[:CHANNELS].square().sum() / values.square().sum()
    assert kept > best - 0.005


def test_latents_are_the_components_of_the_patches(vae, images):
    directions, spreads = principal_components(images, CHANNELS, torch.Generator().manual_seed(0))
    expected = directions.permute(0, 3, 1, 2).flatten(1) @ patches(images) / spreads.view(-1, 1)
    with torch.no_grad():
        posterior = vae.encode(images.float() / 127.5 - 1).latent_dist
    latent = posterior.mode().transpose(0, 1).flatten(1)
    for one, other in zip(latent, expected, strict=True):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.98
        assert (one - other).square().mean().sqrt() < 0.25 * other.std()
    assert posterior.logvar.mean() < -5


def test_decoded_patches_have_their_mean_colour(vae, images):
    with torch.no_grad():
        decoded = vae.decode(vae.encode(images.float() / 127.5 - 1).latent_dist.mode()).sample
    means = F.avg_pool2d(images.float() / 127.5 - 1, 4)
    assert (F.avg_pool2d(decoded, 4) - means).square().mean().sqrt() < 0.1
    assert (F.avg_pool2d(decoded, 4) - means).square().mean() < 0.1 * means.var()


def test_all_weights_are_finite_and_the_same_again(vae, images):
    again = started(images).state_dict()
    for key, value in vae.state_dict().items():
        assert torch.isfinite(value).all() and torch.equal(again[key], value), key


def test_every_weight_can_still_learn(vae, images):
    """Zeros at the end of the residual branches must not cut them off."""
    vae.requires_grad_(True).zero_grad()
    posterior = vae.encode(images[:2].float() / 127.5 - 1).latent_dist
    decoded = vae.decode(posterior.mode()).sample
    ((decoded - images[:2] / 127.5 + 1).square().mean() + 1e-3 * posterior.kl().mean()).backward()
    dead = [
        key for key, parameter in vae.named_parameters() if key.endswith('conv2.weight') and not parameter.grad.any()
    ]
    assert not dead
