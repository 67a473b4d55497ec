"""Feature extraction from images with the frozen VAE encoder and one call of the adapted UNet at a fixed timestep."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rass_mm.diffusion.adapter_loading import merge_file
from rass_mm.diffusion.adapters import AdapterSpec, add_adapter
from rass_mm.diffusion.base import DiffusionBase
from rass_mm.diffusion.base_loading import load_unet, load_vae
from rass_mm.diffusion.features import RASS_FEATURES, collected, describe_features
from rass_mm.diffusion.prepared import prepare_network, prepare_unet
from rass_mm.errors import ConfigError, DataError


class DiffusionExtractor(nn.Module):
    """Feature extractor of RASS: the frozen VAE encoder, and the UNet with a merged restorer and a new LoRA.

    Args:
        base: the base, see `read_base`.
        features: names of the features to return, in this order. See `describe_features`.
        merged_adapter: adapter file of a restorer (SCR), which is merged into the UNet before the new LoRA is added.
            None merges no adapter.
        adapter: settings of the new LoRA. None uses the defaults of `AdapterSpec`.
        train: the trained parameters: 'adapter' (LoRA and `conv_in`), 'unet' (the whole UNet) or 'nothing'.
        timestep: the timestep passed to the UNet, in [0, 1000).
        sample_latent: whether to sample the latent from the VAE's posterior, as the released code does, instead of
            using the mode.
        gradient_checkpointing: whether to recompute the activations of the UNet in the backward pass to save memory.
        resize_features: whether to accept images with sides that are only multiples of the VAE's stride, as the
            released code does, and to resize each feature to (H // stride, W // stride).

    Raises:
        ConfigError: the name of a feature or the value of `train` is not valid.
        AdapterError, BaseFolderError: the adapter file or the base cannot be used.
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
            raise ConfigError(f"train is {train!r}, but it must be 'adapter', 'unet' or 'nothing'.")
        if train != 'nothing':
            self._freeze_unused()
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.dtype: torch.dtype | None = None
        self.timestep = timestep
        self.sample_latent = sample_latent
        self.resize_features = resize_features

    def _freeze_unused(self) -> None:
        """Freezes the layers of the UNet's noise output, which is not used, so that they never receive a gradient."""
        self.unet.conv_norm_out.requires_grad_(False)
        self.unet.conv_out.requires_grad_(False)

    def train(self, mode: bool = True) -> 'DiffusionExtractor':
        """Sets the mode of the UNet only. The VAE is frozen and stays in eval mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def forward(self, images: Tensor, context: Tensor | None) -> list[Tensor]:
        """Computes the features of images.

        Args:
            images: (B, 3, H, W) RGB in [-1, 1]. H and W must be multiples of `size_multiple`.
            context: (B, T, C) context tokens for the cross-attention. None uses the stored prompt of a prepared
                extractor.

        Returns:
            One (B, C_i, H // stride_i, W // stride_i) tensor per feature, in the order of `features`. A prepared
            extractor returns them in the dtype of its weights.

        Raises:
            DataError: a side is not a multiple of `size_multiple`.
        """
        self._check_size(images)
        places = {info.name: self._place(info.name) for info in self.features}
        if self.dtype is not None:
            images, context = images.to(self.dtype), None if context is None else context.to(self.dtype)
        with collected(places) as found:
            latent = self.encode(images)
            timestep = torch.full((), self.timestep, device=latent.device)
            self.unet(latent, timestep, encoder_hidden_states=context, return_dict=False)
        size = images.shape[-2:]
        return [resized(found[info.name], [side // info.stride for side in size]) for info in self.features]

    def prepare_prediction(self, dtype: torch.dtype, prompt: nn.Module) -> None:
        """Prepares the extractor for prediction with this prompt, in place, see `prepare_unet`.

        The layers of the noise output are dropped. Afterwards, the extractor computes in `dtype`.
        """
        prepare_unet(self.unet, self.timestep, prompt, dtype)
        self.unet.conv_norm_out, self.unet.conv_out = None, nn.Identity()
        prepare_network(self.vae, dtype)
        self.dtype = dtype

    @property
    def size_multiple(self) -> int:
        """Required divisor of image heights and widths in pixels."""
        return self.base.vae_stride if self.resize_features else self.base.size_multiple

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Encodes (B, 3, H, W) RGB images in [-1, 1] to the scaled latent, without gradients.

        Returns:
            (B, C, H/s, W/s), where s is the stride of the VAE.
        """
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
                f'The image has {images.shape[-2]}x{images.shape[-1]} pixels, but both sides must be multiples of '
                f'{multiple} for this base. Set data_preprocessor.test_cfg=dict(size_divisor={multiple}) and a '
                f'crop_size with sides that are multiples of {multiple}.'
            )


def resized(feature: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes a (B, C, h, w) feature map to `size` (height, width) bilinearly if it has another size.

    The UNet rounds odd sides up, so a feature map is not always exactly `stride` times smaller than the image.
    """
    if tuple(feature.shape[-2:]) == tuple(size):
        return feature
    return F.interpolate(feature, tuple(size), mode='bilinear', align_corners=False)
