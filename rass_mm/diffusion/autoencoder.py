"""Images to latents and back: the base's VAE, or a tiny autoencoder (TAESD) in place of its decoder or of both ends.

Both speak scaled latents (what the UNet sees) and images in [-1, 1].
"""

import os
from pathlib import Path
from typing import Protocol

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors import safe_open
from torch import Tensor, nn

from rass_mm.diffusion.base import DiffusionBase, load_vae, load_whole
from rass_mm.errors import BaseFolderError, ConfigError

TAESD_FILES = {'encoder': 'taesd_encoder.safetensors', 'decoder': 'taesd_decoder.safetensors'}
TAESD_CHANNELS, TAESD_STRIDE = 4, 8
ENDS = ('decoder', 'both')


class Autoencoder(Protocol):
    """What a restorer needs of an autoencoder."""

    stride: int
    """Image pixels per latent pixel."""
    vae: AutoencoderKL | None
    """The base's VAE, as far as it is in use."""

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] to the scaled latent (B, C, H/stride, W/stride); no graph is kept."""

    def decode(self, latent: Tensor) -> Tensor:
        """Scaled latent (B, C, h, w) to (B, 3, h*stride, w*stride) RGB around [-1, 1]; gradients pass through."""


class BaseAutoencoder(nn.Module):
    """The base's VAE, frozen; the latent is the mode of its posterior.

    Args:
        base: the base folder.
        gradient_checkpointing: recompute the decoder's activations in the backward pass.
    """

    def __init__(self, base: DiffusionBase, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.vae = load_vae(base, decoder=True)
        self.stride, self.scale = base.vae_stride, base.scaling_factor
        if gradient_checkpointing:
            self.vae.enable_gradient_checkpointing()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See `Autoencoder`."""
        return self.vae.encode(images).latent_dist.mode() * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """See `Autoencoder`."""
        return self.vae.decode(latent / self.scale, return_dict=False)[0]


class TinyAutoencoder(nn.Module):
    """TAESD for the latents of Stable Diffusion 1 and 2, in place of the base's decoder or of both its ends.

    Args:
        base: the base folder; its encoder is used unless `ends` is 'both'.
        folder: `taesd_encoder.safetensors` and `taesd_decoder.safetensors`, or a diffusers folder of an
            `AutoencoderTiny`.
        ends: 'decoder' or 'both'.

    Raises:
        ConfigError: the base's latents are of another kind, or `ends` is unknown.
        BaseFolderError: the files are missing or damaged.
    """

    def __init__(self, base: DiffusionBase, folder: str | os.PathLike, ends: str = 'decoder') -> None:
        super().__init__()
        if ends not in ENDS:
            raise ConfigError(f"autoencoder.ends is {ends!r}; 'decoder' or 'both' is needed.")
        self.tiny = load_tiny(Path(folder))
        self.stride = TAESD_STRIDE
        channels = base.configs['unet']['in_channels']
        strides = base.vae_stride if ends == 'decoder' else TAESD_STRIDE
        if channels != TAESD_CHANNELS or strides != TAESD_STRIDE:
            raise ConfigError(
                f'TAESD speaks latents of {TAESD_CHANNELS} channels at stride {TAESD_STRIDE}, but the base '
                f'{base.folder} has {channels} channels at stride {base.vae_stride}. Use the base of Stable Diffusion '
                f'1 or 2, or leave autoencoder.tiny out.'
            )
        self.full = None
        if ends == 'decoder':
            self.full = load_vae(base)
            self.tiny.encoder = None
        self.scale = base.scaling_factor

    @property
    def vae(self) -> AutoencoderKL | None:
        """The base's encoder where it is in use."""
        return self.full

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See `Autoencoder`."""
        if self.full is None:
            return self.tiny.encode(images).latents
        return self.full.encode(images).latent_dist.mode() * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """See `Autoencoder`."""
        return self.tiny.decode(latent).sample


def build_autoencoder(
    base: DiffusionBase,
    tiny: str | os.PathLike | None = None,
    ends: str = 'decoder',
    gradient_checkpointing: bool = False,
) -> BaseAutoencoder | TinyAutoencoder:
    """The base's VAE, or with a folder `tiny` a `TinyAutoencoder`; frozen, in eval mode."""
    if tiny is None:
        return BaseAutoencoder(base, gradient_checkpointing).eval()
    return TinyAutoencoder(base, tiny, ends).requires_grad_(False).eval()


def load_tiny(folder: Path) -> AutoencoderTiny:
    """`AutoencoderTiny` from a diffusers folder or from TAESD's two published files, in float32.

    Raises:
        BaseFolderError: files are missing, damaged or do not fit.
    """
    if (folder / 'config.json').is_file():
        return load_whole(AutoencoderTiny, folder, '.', torch_dtype=torch.float32)
    missing = [name for name in TAESD_FILES.values() if not (folder / name).is_file()]
    if missing:
        raise BaseFolderError(
            f'{folder / missing[0]} is missing. Needed: a folder with {" and ".join(TAESD_FILES.values())} '
            f'(safetensors, from the TAESD project), or a diffusers folder of an AutoencoderTiny.'
        )
    model = AutoencoderTiny()
    try:
        state = {}
        for part, name in TAESD_FILES.items():
            with safe_open(folder / name, 'pt') as file:
                first = 0 if part == 'encoder' else 1  # the published decoder counts its input clamp as layer 0
                state |= {_renamed(part, key, first): file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        model.load_state_dict(state)
    except Exception as error:  # safetensors has one error type of its own, outside any common base class
        raise BaseFolderError(f'{folder} holds no usable TAESD weights ({error}). Fetch its two files again.') from None
    return model.requires_grad_(False).eval()


def _renamed(part: str, key: str, first: int) -> str:
    index, rest = key.removeprefix(f'{part}.').split('.', 1)
    return f'{part}.layers.{int(index) - first}.{rest}'
