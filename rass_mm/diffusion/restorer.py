"""The one-step restorer: image in, restored image out, by one call of the adapted UNet."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rass_mm.diffusion.adapters import (
    AdapterSource,
    AdapterSpec,
    as_adapter,
    copy_adapter,
    merge_file,
    save_adapter,
)
from rass_mm.diffusion.attention import SECOND_HALF, captured_attention, cross_attention_layers
from rass_mm.diffusion.autoencoder import build_autoencoder
from rass_mm.diffusion.base import DiffusionBase, load_unet, read_base
from rass_mm.diffusion.latent_tiles import in_latent_tiles
from rass_mm.diffusion.one_step import FORMS, cumulated_alphas, one_step
from rass_mm.diffusion.prompts import PROMPTS, Prompt
from rass_mm.diffusion.shared_unet import GENERATOR, SharedUNet
from rass_mm.diffusion.stages import StagePoint
from rass_mm.errors import AdapterError, ConfigError, DataError

DTYPES = ('float32', 'bfloat16', 'float16')


class OneStepRestorer(nn.Module):
    """Frozen autoencoder around a UNet with a LoRA: z_L -> z_H -> image (paper, restoration stage).

    Args:
        base: the validated base folder.
        form: 'residual' or 'x0', see `one_step`.
        timestep: the timestep the UNet is told; None takes the form's own (1 or 999).
        adapter: rank and scale of the LoRA.
        critic: rank and scale of the critic's LoRA for the VSD loss; None leaves the critic out.
        start: an adapter (its file, or its content) to start from; None starts from a fresh LoRA, which restores
            nothing yet.
        trainable: False merges the adapter of `start` into UNet and VAE, frozen: the same output, faster.
        autoencoder: keyword arguments of `build_autoencoder`, e.g. `dict(tiny='weights/taesd', ends='both')`.
        attention_layers: where attention maps are taken when they are asked for.
        gradient_checkpointing: recompute the activations of UNet and decoder in the backward pass.

    Raises:
        ConfigError: an unknown form, or a timestep outside 0..999.
        AdapterError, BaseFolderError: a file that cannot be used.
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
            raise ConfigError(f'form is {form!r}; one of {", ".join(FORMS)} is needed.')
        self.base, self.form = base, form
        self.timestep = FORMS[form] if timestep is None else timestep
        alphas = cumulated_alphas(base.configs['scheduler'])
        if not 0 <= self.timestep < len(alphas):
            raise ConfigError(f'timestep is {self.timestep}; 0 to {len(alphas) - 1} is needed.')
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
                'A restorer with trainable=False needs the adapter file that it restores with: set start (model.start).'
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
                f'{adapter.path} was made for form {made[0]!r} at timestep {made[1]}, but form {self.form!r} at '
                f'{self.timestep} is asked for, which is another computation. Set form and timestep (model.form, '
                f'model.timestep) to those of the file.'
            )
        self.merged.append({'name': header['name'], 'hash': header['hash']})

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this."""
        return self.autoencoder.stride * 2 ** (len(self.base.configs['unet']['block_out_channels']) - 1)

    def train(self, mode: bool = True) -> 'OneStepRestorer':
        """Switches the UNet only: the autoencoder is frozen and stays in eval mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    @contextmanager
    def capturing(self) -> Iterator[dict[str, Tensor]]:
        """Yields the attention maps of the calls inside (see `captured_attention`); may be nested."""
        if self._maps is not None:
            yield self._maps
            return
        with captured_attention(self.unet, self.attention_layers) as self._maps:
            try:
                yield self._maps
            finally:
                self._maps = None

    def forward(self, images: Tensor, context: Tensor, latent_tiles: bool = False) -> Tensor:
        """Restores images.

        Args:
            images: (B, 3, H, W) RGB in [-1, 1]; H and W multiples of `size_multiple`.
            context: (B, T, C) context tokens.
            latent_tiles: whether the UNet sees a large latent in OSEDiff's tiles; then H and W need only be multiples
                of the autoencoder's stride. The autoencoder sees whole images in any case.

        Returns:
            (B, 3, H, W) RGB around [-1, 1], not clamped.

        Raises:
            DataError: a side that is not such a multiple.
        """
        latent = self.encode(images, self.autoencoder.stride if latent_tiles else self.size_multiple)
        return self.decode(self.restore_latent(latent, context, latent_tiles))

    def encode(self, images: Tensor, multiple: int | None = None) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to the scaled latent (B, C, H/s, W/s).

        Raises:
            DataError: a side that is not a multiple of `multiple` (default: `size_multiple`).
        """
        multiple = multiple or self.size_multiple
        if images.shape[-2] % multiple or images.shape[-1] % multiple:
            raise DataError(
                f'Image of {images.shape[-2]}x{images.shape[-1]} pixels: both sides must be multiples of {multiple} '
                f'for this base. Choose such a crop or window, or pad the image.'
            )
        return self.autoencoder.encode(images)

    def restore_latent(self, latent: Tensor, context: Tensor, latent_tiles: bool = False) -> Tensor:
        """z_L (B, C, h, w) to z_H by one call of the UNet, or by one per tile, see `forward`."""
        timestep = torch.as_tensor(self.timestep, device=latent.device)

        def predict(part: Tensor) -> Tensor:
            return self.unet(part, timestep, encoder_hidden_states=context, return_dict=False)[0]

        predicted = in_latent_tiles(latent, predict) if latent_tiles else predict(latent)
        return one_step(latent, predicted, self.form, self.alpha_bar)

    def decode(self, latent: Tensor) -> Tensor:
        """z_H (B, C, h, w) to images (B, 3, h*s, w*s) around [-1, 1]."""
        return self.autoencoder.decode(latent)

    def save(self, path: str | os.PathLike, identity: dict[str, str], prompt: str, classes: Sequence[str]) -> None:
        """Writes the generator's adapter with all that is needed to restore with it, see `load_restorer`."""
        recipe = {'form': self.form, 'timestep': self.timestep, 'prompt': prompt, 'classes': list(classes)}
        save_adapter(self.unet, GENERATOR, path, identity, recipe)

    def stage_points(self) -> list[StagePoint]:
        """Encoder, UNet and decoder, in the order in which they run."""
        ends = self.autoencoder
        return [
            StagePoint('encode', ends, 'encode'),
            StagePoint('UNet', self.unet),
            StagePoint('decode', ends, 'decode'),
        ]

    def heavy_modules(self) -> list[nn.Module]:
        """UNet, encoder and decoder: the modules that are compiled."""
        networks = [self.autoencoder.vae, getattr(self.autoencoder, 'tiny', None)]
        ends = [getattr(network, part) for network in networks if network for part in ('encoder', 'decoder')]
        return [self.unet, *(end for end in ends if end is not None)]


def clamped(restored: Tensor) -> Tensor:
    """Images around [-1, 1] as they can be seen, in [-1, 1].

    Clamping would turn an infinity into white; it becomes NaN, which survives and is found by whoever writes the image.
    """
    return restored.masked_fill(restored.isinf(), torch.nan).clamp(-1, 1)


class Restorer(nn.Module):
    """A trained restorer with its prompt: images in, images out. What `load_restorer` gives.

    Args:
        model: the restorer.
        prompt: a prompt module of `rass_mm.diffusion.prompts`.
        latent_tiles: whether images are restored whole, with the UNet in OSEDiff's tiles.
    """

    def __init__(self, model: OneStepRestorer, prompt: nn.Module, latent_tiles: bool = False) -> None:
        super().__init__()
        self.model, self.prompt, self.latent_tiles = model, prompt, latent_tiles

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this."""
        return self.model.autoencoder.stride if self.latent_tiles else self.model.size_multiple

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [-1, 1] to the same, restored and clamped, on the images' device in their dtype.

        Raises:
            DataError: a side that is not a multiple of `size_multiple`.
        """
        place = next(self.model.unet.parameters())
        inside = images.to(place.device, place.dtype)
        restored = self.model(inside, self._prompt(inside).context, self.latent_tiles)
        return clamped(restored.to(images.device, images.dtype))

    @torch.inference_mode()
    def attention(self, images: Tensor) -> tuple[dict[str, Tensor], Prompt]:
        """Attention maps (layer name -> (B, N, T)) of (B, 3, H, W) RGB images in [-1, 1], and the prompt they read."""
        place = next(self.model.unet.parameters())
        inside = images.to(place.device, place.dtype)
        prompt = self._prompt(inside)
        with self.model.capturing() as maps:
            self.model.restore_latent(self.model.encode(inside), prompt.context)
        return dict(maps), prompt

    def _prompt(self, images: Tensor) -> Prompt:
        prompt = self.prompt(images)
        return Prompt(prompt.context.to(images.device, images.dtype), prompt.owners.to(images.device))

    def stage_points(self) -> list[StagePoint]:
        """The prompt, then the stages of the model."""
        return [StagePoint('prompt', self.prompt), *self.model.stage_points()]


def load_restorer(
    adapter: AdapterSource,
    base: str | os.PathLike | Sequence[str | os.PathLike],
    autoencoder: str | os.PathLike | None = None,
    ends: str = 'decoder',
    device: str = 'cpu',
    dtype: str = 'float32',
    latent_tiles: bool = False,
) -> Restorer:
    """A restorer from an adapter file, which says in which form, at which timestep and with which prompt it works.

    Args:
        adapter: a file that training wrote (`scr_*.safetensors`), or its content.
        base: the base folder it was trained on, or several in order of preference.
        autoencoder: folder of a tiny autoencoder in place of the VAE's decoder; None keeps the VAE.
        ends: with `autoencoder`, 'decoder' or 'both'.
        device: where it runs.
        dtype: 'float32', 'bfloat16' or 'float16'.
        latent_tiles: restores whole images, with the UNet in OSEDiff's tiles; see `RestoreOptions.scheme`.

    Raises:
        AdapterError: the file is unusable, no restorer's, or of another base.
        BaseFolderError, ConfigError: the base, the autoencoder or the dtype cannot be used.
    """
    if dtype not in DTYPES:
        raise ConfigError(f'dtype is {dtype!r}; one of {", ".join(DTYPES)} is needed.')
    content = as_adapter(adapter)
    if 'recipe' not in content.header:
        raise AdapterError(
            f'{content.path} is an adapter, but no restorer: its header has no recipe (form, prompt, classes).'
        )
    recipe = content.header['recipe']
    found = read_base(base)
    tiny = {'tiny': autoencoder, 'ends': ends} if autoencoder else None
    model = OneStepRestorer(found, recipe['form'], recipe['timestep'], start=content, trainable=False, autoencoder=tiny)
    prompt = PROMPTS[recipe['prompt']](found, recipe['classes'])
    return Restorer(model, prompt, latent_tiles).to(device, getattr(torch, dtype)).eval()
