"""Initializes a small autoencoder to a linear PCA coding of image patches.

With random weights, a small `AutoencoderKL` needs thousands of steps before brightness and colour pass through its
normalisation layers. This initialization starts with the best linear encoder of 4x4 patches and with a decoder that
returns the mean colour of each patch. Training refines both. Three facts make the deep network linear:

- A residual branch adds nothing if the weights and the bias of its last layer are zero.
- `silu(x) - silu(-x) = x`.
- A group norm divides by a large constant instead of the standard deviation of the image if each group contains this
  constant and its negative.
"""

import math

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

PATCH, CHANNELS = 4, 3
CONSTANT = 8.0
"""Magnitude of the constants in the group norms. It is much larger than the signals, whose standard deviation is 1."""
SMALL_LOG_VARIANCE = -8.0


@torch.no_grad()
def start_linear(vae: AutoencoderKL, images: Tensor, generator: torch.Generator) -> None:
    """Initializes an autoencoder in place to the linear coding that the module docstring describes.

    Args:
        vae: autoencoder with stride 4 (three levels, one layer per block) and random weights.
        images: (N, 3, h, w) uint8 images whose principal components are used; h and w multiples of 4.
        generator: random generator that selects the patches.
    """
    components, spreads = principal_components(images, vae.config.latent_channels, generator)
    for name, module in vae.named_modules():
        if name.endswith(('.conv2', '.to_out.0')):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    _start_encoder(vae, components / spreads.view(-1, 1, 1, 1))
    _start_decoder(vae, components.mean((1, 2)) * spreads.view(-1, 1))
    for conv in (vae.quant_conv, vae.post_quant_conv):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)


def principal_components(images: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Computes the principal components of 4x4 image patches, with pixels scaled to [-1, 1].

    Args:
        images: (N, 3, h, w) uint8; h and w multiples of 4.
        count: number of components.
        generator: random generator that selects the patches.

    Returns:
        The directions of the components, (count, 4, 4, 3), and the standard deviations along them, (count,).
    """
    patches = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 4, 5, 1).reshape(-1, PATCH**2 * 3)
    chosen = torch.randint(len(patches), (min(len(patches), 100_000),), generator=generator)
    values, vectors = torch.linalg.eigh(torch.cov((patches[chosen].double() / 127.5 - 1).T))
    largest = values.argsort(descending=True)[:count]
    directions = vectors[:, largest].T.reshape(count, PATCH, PATCH, CHANNELS)
    # A direction and its negative are the same component. The sign is fixed so that all machines agree.
    signs = directions.flatten(1).gather(1, directions.flatten(1).abs().argmax(1, keepdim=True)).sign()
    return (directions * signs.view(-1, 1, 1, 1)).float(), values[largest].clamp(min=1e-8).sqrt().float()


def _start_encoder(vae: AutoencoderKL, rows: Tensor) -> None:
    """Sets the encoder to apply the K linear filters `rows`, (K, 4, 4, 3), to each 4x4 patch.

    The first strided convolution collects the pixels of 2x2 patches in 12 channels. The second one applies the filters.
    """
    encoder, count, groups = vae.encoder, len(rows), vae.config.norm_num_groups
    _pass_through(encoder.conv_in, CHANNELS)
    halve, quarter = (block.downsamplers[0].conv for block in encoder.down_blocks[:2])
    _clear(halve, 4 * CHANNELS)
    _clear(quarter, count)
    for channel in range(CHANNELS):
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            halve.weight[4 * channel + 2 * y + x, channel, y, x] = 1
            quarter.weight[:count, 4 * channel + 2 * y + x, :2, :2] = rows[:, y::2, x::2, channel]
    _pass_through(encoder.down_blocks[1].resnets[0].conv_shortcut, 4 * CHANNELS)
    entry, out = encoder.down_blocks[2].resnets[0].conv_shortcut, encoder.conv_out
    entry.weight *= 0.3
    out.weight[count:] *= 0.1
    out.weight[:count] = 0
    nn.init.zeros_(out.bias)
    out.bias[count:] = SMALL_LOG_VARIANCE
    places = _hold_norm(entry, encoder.conv_norm_out, groups, count)
    for component, place in enumerate(places):
        entry.weight[place, component], entry.weight[place + 1, component] = 1, -1
        out.weight[component, place, 1, 1], out.weight[component, place + 1, 1, 1] = 1, -1


def _start_decoder(vae: AutoencoderKL, colors: Tensor) -> None:
    """Sets the decoder to return the mean colour of each patch: the sum of `colors` (K, 3) weighted by the latent."""
    decoder, count = vae.decoder, len(colors)
    first, second, last = decoder.up_blocks
    for conv in (decoder.conv_in, first.upsamplers[0].conv, second.resnets[0].conv_shortcut, second.upsamplers[0].conv):
        _pass_through(conv, count)
    entry, out = last.resnets[0].conv_shortcut, decoder.conv_out
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    places = _hold_norm(entry, decoder.conv_norm_out, vae.config.norm_num_groups, CHANNELS)
    for channel, place in enumerate(places):
        # The other channels contain only noise at the start, but the decoder learns from their gradient.
        noise = 0.1 * entry.weight[place].clone()
        noise[:count, 0, 0] = colors[:, channel]
        entry.weight[place], entry.weight[place + 1] = noise, -noise
        out.weight[channel, place, 1, 1], out.weight[channel, place + 1, 1, 1] = 1, -1


def _hold_norm(entry: nn.Conv2d, norm: nn.GroupNorm, groups: int, count: int) -> list[int]:
    """Makes a group norm linear with constants in each group. Returns the first of the two channels of each signal.

    The last two channels of a group are the constant and its negative. Signals fill the other channels in order. The
    weight of the norm cancels its division by the standard deviation, which the constants determine.
    """
    width = entry.weight.shape[0] // groups
    places = [(index % groups) * width + 2 * (index // groups) for index in range(count)]
    for place in places:
        entry.bias[place : place + 2] = 0
        entry.weight[place : place + 2] = 0
    for group in range(groups):
        last = (group + 1) * width
        entry.weight[last - 2 : last] = 0
        entry.bias[last - 2], entry.bias[last - 1] = CONSTANT, -CONSTANT
    nn.init.constant_(norm.weight, CONSTANT * math.sqrt(2 / width))
    return places


def _clear(conv: nn.Conv2d, count: int) -> None:
    conv.weight[:count] = 0
    conv.bias[:count] = 0


def _pass_through(conv: nn.Conv2d, count: int) -> None:
    """Sets a convolution to copy its first `count` channels; the others keep their random weights."""
    _clear(conv, count)
    middle = conv.weight.shape[-1] // 2
    for channel in range(count):
        conv.weight[channel, channel, middle, middle] = 1
