"""Image in, named features out: frozen VAE encoder, then one call of the adapted UNet at a fixed timestep."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rass_mm.diffusion.adapters import AdapterSpec, add_adapter, merge_file
from rass_mm.diffusion.base import DiffusionBase, load_unet, load_vae
from rass_mm.diffusion.features import RASS_FEATURES, collected, describe_features
from rass_mm.errors import ConfigError, DataError


class DiffusionExtractor(nn.Module):
    """The feature side of RASS (paper, section on the segmentation stage): merged restorer, fresh LoRA, UNet features.

    Args:
        base: the validated base folder.
        features: names of the features to give, in this order.
        merged_adapter: an adapter file (SCR's) to merge into the UNet first; None starts from the plain base.
        adapter: rank and scale of the new LoRA; None takes the defaults of `AdapterSpec`.
        train: 'adapter' (LoRA and conv_in), 'unet' (all of the UNet) or 'nothing'.
        timestep: the timestep the UNet is told, in [0, 1000).
        sample_latent: draw the latent from the VAE's posterior instead of taking its mode (the released behaviour).
        gradient_checkpointing: trade a second UNet forward for the memory of its activations.
        resize_features: accept sides that are multiples of the VAE's stride only, as the released windows are, and
            resize the features to side // stride; else such sides are an error.
    """

    def __init__(
        self,
        base: DiffusionBase,
        features: Sequence[str] = RASS_FEATURES,
        merged_adapter: str | None = None,
        adapter: AdapterSpec | None = None,
        train: str = 'adapter',
        timestep: int = 1,
        sample_latent: bool = False,
        gradient_checkpointing: bool = False,
        resize_features: bool = False,
    ) -> None:
        super().__init__()
        self.base = base
        self.features = describe_features(base, features)
        self.vae = load_vae(base)
        self.unet = load_unet(base)
        self.merged: list[dict] = []
        if merged_adapter is not None:
            header = merge_file(self.unet, self.vae, merged_adapter, base.identity)
            self.merged.append({'name': header['name'], 'hash': header['hash']})
        if train == 'adapter':
            add_adapter(self.unet, 'seg', adapter)
        elif train == 'unet':
            self.unet.requires_grad_(True)
        elif train != 'nothing':
            raise ConfigError(f"train is {train!r}; 'adapter', 'unet' or 'nothing' is needed.")
        if train != 'nothing':
            self._freeze_unused()
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.timestep = timestep
        self.sample_latent = sample_latent
        self.resize_features = resize_features

    def _freeze_unused(self) -> None:
        """The UNet's noise output is not used: what only it needs would never get a gradient."""
        self.unet.conv_norm_out.requires_grad_(False)
        self.unet.conv_out.requires_grad_(False)

    def train(self, mode: bool = True) -> 'DiffusionExtractor':
        """Switches the UNet only: the VAE is frozen and stays in eval mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def forward(self, images: Tensor, context: Tensor) -> list[Tensor]:
        """Computes the features.

        Args:
            images: (B, 3, H, W) RGB in [-1, 1]; H and W multiples of `size_multiple`.
            context: (B, T, C) context tokens for the cross-attention.

        Returns:
            One (B, C_i, H // stride_i, W // stride_i) tensor per feature, in the order of `features`.

        Raises:
            DataError: a side that is not a multiple of `size_multiple`.
        """
        self._check_size(images)
        places = {info.name: self._place(info.name) for info in self.features}
        with collected(places) as found:
            latent = self.encode(images)
            timestep = torch.as_tensor(self.timestep, device=latent.device)
            self.unet(latent, timestep, encoder_hidden_states=context, return_dict=False)
        size = images.shape[-2:]
        return [resized(found[info.name], [side // info.stride for side in size]) for info in self.features]

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this."""
        return self.base.vae_stride if self.resize_features else self.base.size_multiple

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to the scaled latent (B, 4, H/s, W/s); no graph is kept."""
        posterior = self.vae.encode(images).latent_dist
        latent = posterior.sample() if self.sample_latent else posterior.mode()
        return latent * self.base.scaling_factor

    def _place(self, name: str) -> nn.Module:
        part, path = name.split('.', 1)
        return (self.vae.encoder if part == 'vae' else self.unet).get_submodule(path)

    def _check_size(self, images: Tensor) -> None:
        multiple = self.size_multiple
        if images.shape[-2] % multiple or images.shape[-1] % multiple:
            raise DataError(
                f'Image of {images.shape[-2]}x{images.shape[-1]} pixels: both sides must be multiples of {multiple} '
                f'for this base. Set data_preprocessor.test_cfg=dict(size_divisor={multiple}) and such a crop size.'
            )


def resized(feature: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) at another (height, width), bilinear; unchanged where it has that size.

    A UNet level of an odd side is rounded up, so its maps are not exactly `stride` times smaller than the image.
    """
    if tuple(feature.shape[-2:]) == tuple(size):
        return feature
    return F.interpolate(feature, tuple(size), mode='bilinear', align_corners=False)
