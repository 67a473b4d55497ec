"""One-step restorer: a frozen autoencoder around one call of the adapted UNet."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rass_mm.devices import compute_in
from rass_mm.diffusion.adapter_files import AdapterSource, as_adapter, save_adapter
from rass_mm.diffusion.adapter_loading import copy_adapter, merge_file
from rass_mm.diffusion.adapters import AdapterSpec
from rass_mm.diffusion.attention import SECOND_HALF, captured_attention, cross_attention_layers
from rass_mm.diffusion.autoencoder import build_autoencoder
from rass_mm.diffusion.base import DiffusionBase
from rass_mm.diffusion.base_loading import load_unet
from rass_mm.diffusion.latent_tiles import in_latent_tiles
from rass_mm.diffusion.one_step import FORMS, cumulated_alphas, one_step
from rass_mm.diffusion.prepared import prepare_network, prepare_unet
from rass_mm.diffusion.shared_unet import CRITIC, GENERATOR, SharedUNet
from rass_mm.diffusion.stages import StagePoint
from rass_mm.errors import ConfigError, DataError


class OneStepRestorer(nn.Module):
    """One-step restorer: a UNet with a LoRA between the encoder and the decoder of a frozen autoencoder.

    The encoder computes the latent z_L of a low-quality image, the UNet restores it to z_H, and the decoder computes
    the restored image from z_H.

    Args:
        base: the base, see `read_base`.
        form: 'residual' or 'x0', see `one_step`.
        timestep: the timestep passed to the UNet. None uses the default of the form (1 for 'residual', 999 for 'x0').
        adapter: settings of the LoRA. None uses the defaults of `AdapterSpec`.
        critic: settings of a second LoRA, which is the critic of the VSD loss. None creates no critic.
        start: an adapter file, or its content, to start from. None starts from a new LoRA, which does not restore
            anything before it is trained.
        trainable: whether the adapter can be trained. False merges the adapter of `start` into the frozen UNet and VAE,
            which produces the same output faster.
        autoencoder: keyword arguments of `build_autoencoder`, e.g. `dict(tiny='weights/taesd', ends='both')`.
        attention_layers: parts of the UNet whose attention maps `capturing` yields, see `cross_attention_layers`.
        gradient_checkpointing: whether to recompute the activations of the UNet and the decoder in the backward pass to
            save memory.

    Raises:
        ConfigError: the form is unknown, the timestep is out of range, or `trainable` is False and `start` is missing
            or was trained with another form or timestep.
        AdapterError, BaseFolderError: the adapter file or the base cannot be used.
    """

    def __init__(
        self,
        base: DiffusionBase,
        form: str = 'residual',
        timestep: int | None = None,
        adapter: AdapterSpec | None = None,
        critic: AdapterSpec | None = None,
        start: AdapterSource | None = None,
        trainable: bool = True,
        autoencoder: dict[str, Any] | None = None,
        attention_layers: Sequence[str] = SECOND_HALF,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ConfigError(f'form is {form!r}, but it must be one of {", ".join(FORMS)}.')
        self.base, self.form = base, form
        self.timestep = FORMS[form] if timestep is None else timestep
        alphas = cumulated_alphas(base.configs['scheduler'])
        if not 0 <= self.timestep < len(alphas):
            raise ConfigError(f'timestep is {self.timestep}, but it must be in the range 0 to {len(alphas) - 1}.')
        self.alpha_bar = alphas[self.timestep].item()
        self.autoencoder = build_autoencoder(base, gradient_checkpointing=gradient_checkpointing, **(autoencoder or {}))
        self.unet = load_unet(base)
        self.shared = SharedUNet(self.unet, adapter, critic) if trainable else None
        self.plain_conv_in = self.shared.plain_conv_in if self.shared else None
        self.merged: list[dict[str, str]] = []
        if start is not None:
            self._start(start)
        elif not trainable:
            raise ConfigError(
                'A restorer with trainable=False needs a trained adapter. Set start (model.start) to its file.'
            )
        self.attention_layers = cross_attention_layers(self.unet, attention_layers)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self._maps: dict[str, Tensor] | None = None

    def _start(self, source: AdapterSource) -> None:
        adapter = as_adapter(source)
        if self.shared is not None:
            copy_adapter(self.unet, GENERATOR, adapter, self.base.identity)
            return
        header = merge_file(self.unet, self.autoencoder.vae, adapter, self.base.identity)
        recipe = header.get('recipe') or {}
        made = (recipe.get('form', self.form), recipe.get('timestep', self.timestep))
        if made != (self.form, self.timestep):
            raise ConfigError(
                f'{adapter.path} was trained for form {made[0]!r} at timestep {made[1]}, but this model has form '
                f'{self.form!r} at timestep {self.timestep}, which is a different computation. Set form and timestep '
                f'(model.form, model.timestep) to those of the file.'
            )
        self.merged.append({'name': header['name'], 'hash': header['hash']})

    @property
    def size_multiple(self) -> int:
        """Required divisor of image heights and widths in pixels."""
        return self.autoencoder.stride * 2 ** (len(self.base.configs['unet']['block_out_channels']) - 1)

    def train(self, mode: bool = True) -> 'OneStepRestorer':
        """Sets the mode of the UNet only. The autoencoder is frozen and stays in eval mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    @contextmanager
    def capturing(self) -> Iterator[dict[str, Tensor]]:
        """Context manager. Yields the attention maps of the calls inside the block, see `captured_attention`.

        If it is used inside another such block, it yields the dict of the outer block.
        """
        if self._maps is not None:
            yield self._maps
            return
        with captured_attention(self.unet, self.attention_layers) as self._maps:
            try:
                yield self._maps
            finally:
                self._maps = None

    def forward(self, images: Tensor, context: Tensor | None, latent_tiles: bool = False) -> Tensor:
        """Restores images.

        Args:
            images: (B, 3, H, W) RGB in [-1, 1]. H and W must be multiples of `size_multiple`.
            context: (B, T, C) context tokens. None uses the stored prompt of a prepared restorer.
            latent_tiles: whether the UNet processes a large latent in OSEDiff's tiles, see `in_latent_tiles`. In this
                case, H and W only need to be multiples of the autoencoder's stride. The autoencoder always processes
                whole images.

        Returns:
            (B, 3, H, W) RGB. The nominal range is [-1, 1], but the values are not clamped.

        Raises:
            DataError: H or W is not a multiple of the required number.
        """
        latent = self.encode(images, self.autoencoder.stride if latent_tiles else self.size_multiple)
        return self.decode(self.restore_latent(latent, context, latent_tiles))

    def encode(self, images: Tensor, multiple: int | None = None) -> Tensor:
        """Encodes (B, 3, H, W) RGB images in [-1, 1] to the scaled latent, without gradients.

        Args:
            images: the images.
            multiple: required divisor of H and W. None uses `size_multiple`.

        Returns:
            (B, C, H/s, W/s), where s is the stride of the autoencoder.

        Raises:
            DataError: H or W is not a multiple of `multiple`.
        """
        multiple = multiple or self.size_multiple
        if images.shape[-2] % multiple or images.shape[-1] % multiple:
            raise DataError(
                f'The image has {images.shape[-2]}x{images.shape[-1]} pixels, but both sides must be multiples of '
                f'{multiple} for this base. Choose a crop or window size that is such a multiple, or pad the image.'
            )
        return self.autoencoder.encode(images)

    def restore_latent(self, latent: Tensor, context: Tensor | None, latent_tiles: bool = False) -> Tensor:
        """Computes the restored latent z_H with one call of the UNet, or with one call per tile.

        Args:
            latent: (B, C, h, w) scaled latent z_L.
            context: (B, T, D) context tokens. None uses the stored prompt of a prepared restorer.
            latent_tiles: whether to process a large latent in tiles, see `in_latent_tiles`.

        Returns:
            (B, C, h, w) scaled latent z_H.
        """
        timestep = torch.full((), self.timestep, device=latent.device)

        def predict(part: Tensor) -> Tensor:
            return self.unet(part, timestep, encoder_hidden_states=context, return_dict=False)[0]

        predicted = in_latent_tiles(latent, predict) if latent_tiles else predict(latent)
        return one_step(latent, predicted, self.form, self.alpha_bar)

    def decode(self, latent: Tensor) -> Tensor:
        """Decodes a (B, C, h, w) scaled latent to RGB images.

        Returns:
            (B, 3, h*s, w*s), where s is the stride of the autoencoder. The nominal range is [-1, 1], but the values are
            not clamped.
        """
        return self.autoencoder.decode(latent)

    @property
    def is_capturing(self) -> bool:
        """Whether attention maps are captured, which requires context tokens, see `capturing`."""
        return self._maps is not None

    def prepare_prediction(self, dtype: torch.dtype, prompt: nn.Module) -> None:
        """Prepares the restorer for prediction with this prompt, in place, see `prepare_unet`.

        The critic and the teacher are dropped. Afterwards, the networks compute in `dtype`, and their outputs are
        float32.
        """
        if self.shared is not None and self.shared.has_critic:
            self.unet.delete_adapters(CRITIC)
        self.shared = self.plain_conv_in = None
        prepare_unet(self.unet, self.timestep, prompt, dtype)
        prepare_network(self.autoencoder, dtype)
        for owner, method in ((self.unet, 'forward'), (self.autoencoder, 'encode'), (self.autoencoder, 'decode')):
            compute_in(owner, method, dtype)

    def save(
        self,
        path: str | os.PathLike,
        identity: dict[str, str],
        prompt: str,
        classes: Sequence[str],
        origin: dict[str, Any] | None = None,
    ) -> None:
        """Writes the adapter and all settings that `load_restorer` needs to a file.

        Args:
            path: the file to write (safetensors).
            identity: identity of the base, see `DiffusionBase.identity`.
            prompt: name of the prompt class, a key of `PROMPTS`.
            classes: class names of the prompt.
            origin: further entries of the header, e.g. `terms` and `versions`.
        """
        recipe = {'form': self.form, 'timestep': self.timestep, 'prompt': prompt, 'classes': list(classes)}
        save_adapter(self.unet, GENERATOR, path, identity, recipe, origin)

    def stage_points(self) -> list[StagePoint]:
        """Returns the stages 'encode', 'UNet' and 'decode', in the order in which they run."""
        ends = self.autoencoder
        return [
            StagePoint('encode', ends, 'encode'),
            StagePoint('UNet', self.unet),
            StagePoint('decode', ends, 'decode'),
        ]

    def heavy_modules(self) -> list[nn.Module]:
        """Returns the modules that take most of the run time: the UNet, the encoders and the decoders."""
        networks = [self.autoencoder.vae, getattr(self.autoencoder, 'tiny', None)]
        ends = [getattr(network, part) for network in networks if network for part in ('encoder', 'decoder')]
        return [self.unet, *(end for end in ends if end is not None)]
