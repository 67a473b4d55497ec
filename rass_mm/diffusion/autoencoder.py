"""Autoencoders: the VAE of the base, or a tiny autoencoder (TAESD) that replaces its decoder or the whole VAE.

All of them convert between images in [-1, 1] and scaled latents, which are the input of the UNet.
"""

import os
from pathlib import Path
from typing import Protocol

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors import safe_open
from torch import Tensor, nn

from rass_mm.diffusion.base import DiffusionBase
from rass_mm.diffusion.base_loading import load_vae, load_whole
from rass_mm.errors import BaseFolderError, ConfigError

TAESD_FILES = {'encoder': 'taesd_encoder.safetensors', 'decoder': 'taesd_decoder.safetensors'}
TAESD_CHANNELS, TAESD_STRIDE = 4, 8
ENDS = ('decoder', 'both')


class Autoencoder(Protocol):
    """Interface of an autoencoder, as required by a restorer."""

    stride: int
    """Image pixels per latent pixel."""
    vae: AutoencoderKL | None
    """The VAE of the base if it is used (possibly without its decoder), else None."""

    def encode(self, images: Tensor) -> Tensor:
        """Encodes (B, 3, H, W) RGB images in [-1, 1] to the scaled latent, without gradients.

        Returns:
            (B, C, H/stride, W/stride).
        """

    def decode(self, latent: Tensor) -> Tensor:
        """Decodes a (B, C, h, w) scaled latent to RGB images, with gradients.

        Returns:
            (B, 3, h*stride, w*stride). The nominal range is [-1, 1], but the values are not clamped.
        """


class BaseAutoencoder(nn.Module):
    """The frozen VAE of the base. The latent is the mode of its posterior.

    Args:
        base: the base.
        gradient_checkpointing: whether to recompute the decoder's activations in the backward pass to save memory.
    """

    def __init__(self, base: DiffusionBase, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.vae = load_vae(base, decoder=True)
        self.stride, self.scale = base.vae_stride, base.scaling_factor
        if gradient_checkpointing:
            self.vae.enable_gradient_checkpointing()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Encodes images with the VAE, see `Autoencoder.encode`."""
        return self.vae.encode(images).latent_dist.mode() * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """Decodes a latent with the VAE, see `Autoencoder.decode`."""
        return self.vae.decode(latent / self.scale, return_dict=False)[0]


class TinyAutoencoder(nn.Module):
    """TAESD, a tiny autoencoder for Stable Diffusion 1 and 2, in place of the VAE's decoder or of the whole VAE.

    Args:
        base: the base. The encoder of its VAE is used unless `ends` is 'both'.
        folder: a folder with `taesd_encoder.safetensors` and `taesd_decoder.safetensors`, or a diffusers folder of an
            `AutoencoderTiny`.
        ends: the parts of the VAE that TAESD replaces: 'decoder', or 'both' for the encoder and the decoder.

    Raises:
        ConfigError: the latents of the base do not have the shape that TAESD needs, or `ends` is unknown.
        BaseFolderError: the files are missing or damaged.
    """

    def __init__(self, base: DiffusionBase, folder: str | os.PathLike, ends: str = 'decoder') -> None:
        super().__init__()
        if ends not in ENDS:
            raise ConfigError(f"autoencoder.ends is {ends!r}, but it must be 'decoder' or 'both'.")
        self.tiny = load_tiny(Path(folder))
        self.stride = TAESD_STRIDE
        channels = base.configs['unet']['in_channels']
        strides = base.vae_stride if ends == 'decoder' else TAESD_STRIDE
        if channels != TAESD_CHANNELS or strides != TAESD_STRIDE:
            raise ConfigError(
                f'TAESD needs latents with {TAESD_CHANNELS} channels at stride {TAESD_STRIDE}, but the base '
                f'{base.folder} has {channels} channels at stride {base.vae_stride}. Use a base of Stable Diffusion '
                f'1 or 2, or remove autoencoder.tiny.'
            )
        self.full = None
        if ends == 'decoder':
            self.full = load_vae(base)
            self.tiny.encoder = None
        self.scale = base.scaling_factor

    @property
    def vae(self) -> AutoencoderKL | None:
        """The VAE of the base without its decoder if `ends` is 'decoder', else None."""
        return self.full

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Encodes images with the VAE or with TAESD, depending on `ends`, see `Autoencoder.encode`."""
        if self.full is None:
            return self.tiny.encode(images).latents
        return self.full.encode(images).latent_dist.mode() * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """Decodes a latent with TAESD, see `Autoencoder.decode`."""
        return self.tiny.decode(latent).sample


def build_autoencoder(
    base: DiffusionBase,
    tiny: str | os.PathLike | None = None,
    ends: str = 'decoder',
    gradient_checkpointing: bool = False,
) -> BaseAutoencoder | TinyAutoencoder:
    """Builds the frozen autoencoder of a restorer, in eval mode.

    Args:
        base: the base.
        tiny: folder of a tiny autoencoder, see `TinyAutoencoder`. None uses the VAE of the base.
        ends: the parts of the VAE that the tiny autoencoder replaces, 'decoder' or 'both'.
        gradient_checkpointing: whether to recompute the activations of the VAE's decoder in the backward pass. It has
            no effect on a tiny autoencoder.
    """
    if tiny is None:
        return BaseAutoencoder(base, gradient_checkpointing).eval()
    return TinyAutoencoder(base, tiny, ends).requires_grad_(False).eval()


def load_tiny(folder: Path) -> AutoencoderTiny:
    """Loads an `AutoencoderTiny` in float32 from a diffusers folder or from TAESD's two published files.

    Raises:
        BaseFolderError: files are missing, damaged or do not match the model.
    """
    if (folder / 'config.json').is_file():
        return load_whole(AutoencoderTiny, folder, '.', torch_dtype=torch.float32)
    missing = [name for name in TAESD_FILES.values() if not (folder / name).is_file()]
    if missing:
        raise BaseFolderError(
            f'{folder / missing[0]} is missing. Pass a folder with {" and ".join(TAESD_FILES.values())} '
            f'(safetensors: rass-mm fetch taesd), or a diffusers folder of an AutoencoderTiny.'
        )
    model = AutoencoderTiny()
    try:
        state = {}
        for part, name in TAESD_FILES.items():
            with safe_open(folder / name, 'pt') as file:
                first = 0 if part == 'encoder' else 1  # in the published decoder, layer 0 is the clamp of its input
                state |= {_renamed(part, key, first): file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        model.load_state_dict(state)
    except Exception as error:  # the error type of safetensors has no common base class
        raise BaseFolderError(f'{folder} has no usable TAESD weights ({error}). Download both files again.') from None
    return model.requires_grad_(False).eval()


def _renamed(part: str, key: str, first: int) -> str:
    index, rest = key.removeprefix(f'{part}.').split('.', 1)
    return f'{part}.layers.{int(index) - first}.{rest}'
