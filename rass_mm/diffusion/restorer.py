"""Trained restorer: a one-step restorer with its prompt, loaded from an adapter file."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rass_mm.devices import dtype_name
from rass_mm.diffusion.adapter_checks import AGAIN
from rass_mm.diffusion.adapter_files import Adapter, AdapterSource, as_adapter
from rass_mm.diffusion.base import DiffusionBase, read_base
from rass_mm.diffusion.one_step import cumulated_alphas
from rass_mm.diffusion.one_step_restorer import OneStepRestorer
from rass_mm.diffusion.prompts import PROMPTS, Prompt
from rass_mm.diffusion.stages import StagePoint
from rass_mm.errors import AdapterError, ConfigError


def clamped(restored: Tensor) -> Tensor:
    """Clamps images to [-1, 1] and replaces infinity with NaN.

    Clamping would turn infinity into a valid colour. NaN is not changed by clamping and is detected when the image is
    written.
    """
    return restored.masked_fill(restored.isinf(), torch.nan).clamp(-1, 1)


class Restorer(nn.Module):
    """A trained restorer with its prompt, as returned by `load_restorer`.

    Args:
        model: the one-step restorer.
        prompt: a prompt module of `rass_mm.diffusion.prompts`.
        latent_tiles: whether the UNet processes a large latent in OSEDiff's tiles, see `OneStepRestorer.forward`.
    """

    def __init__(self, model: OneStepRestorer, prompt: nn.Module, latent_tiles: bool = False) -> None:
        super().__init__()
        self.model, self.prompt, self.latent_tiles = model, prompt, latent_tiles

    @property
    def size_multiple(self) -> int:
        """Required divisor of image heights and widths in pixels."""
        return self.model.autoencoder.stride if self.latent_tiles else self.model.size_multiple

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.model.unet.parameters()).device

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Restores (B, 3, H, W) RGB images in [-1, 1].

        Returns:
            (B, 3, H, W) RGB, clamped to [-1, 1], on the device and in the dtype of the input.

        Raises:
            DataError: H or W is not a multiple of `size_multiple`.
        """
        place = next(self.model.unet.parameters())
        inside = images.to(place.device, place.dtype)
        restored = self.model(inside, self._prompt(inside).conditioning, self.latent_tiles)
        return clamped(restored.to(images.device, images.dtype))

    @torch.inference_mode()
    def attention(self, images: Tensor) -> tuple[dict[str, Tensor], Prompt]:
        """Computes the attention maps of (B, 3, H, W) RGB images in [-1, 1].

        Returns:
            The maps, layer name -> (B, N, T) as in `captured_attention`, and the prompt of the images.

        Raises:
            DataError: H or W is not a multiple of `OneStepRestorer.size_multiple`.
        """
        place = next(self.model.unet.parameters())
        inside = images.to(place.device, place.dtype)
        prompt = self._prompt(inside)
        with self.model.capturing() as maps:
            self.model.restore_latent(self.model.encode(inside), prompt.context)
        return dict(maps), prompt

    def _prompt(self, images: Tensor) -> Prompt:
        prompt = self.prompt(images)
        context = prompt.context.to(images.device, images.dtype)
        return Prompt(context, prompt.owners.to(images.device), prompt.stored)

    def prepare_prediction(self, dtype: torch.dtype) -> None:
        """Prepares the restorer for prediction in `dtype`, in place, see `rass_mm.engine.ready.prepare`."""
        self.model.prepare_prediction(dtype, self.prompt)

    def heavy_modules(self) -> list[nn.Module]:
        """Returns the modules that take most of the run time, see `OneStepRestorer.heavy_modules`."""
        return self.model.heavy_modules()

    def stage_points(self) -> list[StagePoint]:
        """Returns the stage 'prompt', followed by the stages of the model."""
        return [StagePoint('prompt', self.prompt), *self.model.stage_points()]


def load_restorer(
    adapter: AdapterSource,
    base: str | os.PathLike | Sequence[str | os.PathLike],
    autoencoder: str | os.PathLike | None = None,
    ends: str = 'decoder',
    device: str = 'cpu',
    dtype: str | torch.dtype = 'float32',
    latent_tiles: bool = False,
) -> Restorer:
    """Loads a restorer from an adapter file, which contains its form, timestep and prompt.

    Args:
        adapter: an adapter file written by the training of a restorer (`scr_*.safetensors`), or its content.
        base: the base folder that the adapter was trained on, or several folders in order of preference.
        autoencoder: folder of a tiny autoencoder, see `TinyAutoencoder`. None uses the VAE of the base.
        ends: the parts of the VAE that the tiny autoencoder replaces, 'decoder' or 'both'.
        device: the device of the restorer.
        dtype: 'float32', 'bfloat16' or 'float16', or the torch dtype of this name.
        latent_tiles: whether the UNet processes a large latent in OSEDiff's tiles, see `OneStepRestorer.forward`.

    Returns:
        The restorer, frozen and in eval mode.

    Raises:
        AdapterError: the file cannot be used, is not a restorer, or was trained on another base.
        BaseFolderError, ConfigError: the base, the autoencoder or the dtype cannot be used.
    """
    dtype = dtype_name(dtype)
    content = as_adapter(adapter)
    if 'recipe' not in content.header:
        raise AdapterError(
            f'{content.path} is an adapter but not a restorer, because its header has no recipe (form, prompt, '
            f'classes). Pass an adapter that was written by the training of a restorer.'
        )
    recipe = content.header['recipe']
    found = read_base(base)
    steps = len(cumulated_alphas(found.configs['scheduler']))
    if recipe['timestep'] >= steps:
        raise AdapterError(
            f'{content.path}: recipe.timestep is {recipe["timestep"]}, but it must be in the range 0 to {steps - 1}. '
            f'{AGAIN}'
        )
    tiny = {'tiny': autoencoder, 'ends': ends} if autoencoder else None
    model = OneStepRestorer(found, recipe['form'], recipe['timestep'], start=content, trainable=False, autoencoder=tiny)
    prompt = _prompt(content, found)
    return Restorer(model, prompt, latent_tiles).to(device, getattr(torch, dtype)).eval()


def _prompt(adapter: Adapter, base: DiffusionBase) -> nn.Module:
    """Builds the prompt that the header of a restorer's adapter names.

    Raises:
        AdapterError: the prompt is unknown, or its classes do not fit the text encoder.
    """
    name, classes = adapter.header['recipe']['prompt'], adapter.header['recipe']['classes']
    if name not in PROMPTS:
        raise AdapterError(
            f'{adapter.path}: recipe.prompt is {name!r}, but images without labels need one of {", ".join(PROMPTS)}. '
            f'Pass the adapter of a restorer that was trained with one of these prompts.'
        )
    if name == 'ClassTokens' and not classes:
        raise AdapterError(
            f'{adapter.path}: recipe.classes is empty, but {name} needs at least one class name. {AGAIN}'
        )
    try:
        return PROMPTS[name](base, classes)
    except ConfigError as error:
        raise AdapterError(f'{adapter.path}: recipe.classes cannot be used. {error}') from None
