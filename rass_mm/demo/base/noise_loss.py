"""Noise-prediction loss that trains the UNet and the text encoder of a small base."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor, nn

from rass_mm.demo.base.images import BaseImages, cut, random_crops
from rass_mm.demo.base.recipe import BaseRecipe


class NoiseLoss:
    """Noise-prediction loss of latent diffusion (Ho et al. 2020, eq. 14) on random crops of cached latents.

    The caption of a crop lists its classes in random order. Captions therefore differ between crops of one image.
    """

    def __init__(
        self, parts: list[nn.Module], latents: Tensor, data: BaseImages, tokenizer: Any, recipe: BaseRecipe
    ) -> None:
        self.unet, self.text = parts
        self.latents, self.data, self.tokenizer, self.recipe = latents, data, tokenizer, recipe
        self.stride = data.labels.shape[-1] // latents.shape[-1]
        self.scheduler = DDPMScheduler(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012)

    def __call__(self, generator: torch.Generator) -> Tensor:
        recipe = self.recipe
        size = self.latents.shape[-2:]
        crops = random_crops(recipe.unet_batch, len(self.latents), size, recipe.unet_crop, generator)
        clean = cut(self.latents, crops, recipe.unet_crop)
        ids = torch.tensor([self._caption(crop, generator) for crop in crops])
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(1000, (len(clean),), generator=generator)
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        context = self.text(input_ids=ids).last_hidden_state
        predicted = self.unet(noisy, timesteps, encoder_hidden_states=context).sample
        if recipe.snr_gamma is None:
            return F.mse_loss(predicted, noise)
        errors = (predicted - noise).square().mean((1, 2, 3))
        return (errors * self._weights(timesteps)).mean()

    def _weights(self, timesteps: Tensor) -> Tensor:
        """Returns the Min-SNR weights (B,) of the noise loss, min(SNR, gamma) / SNR, for timesteps (B,)."""
        kept = self.scheduler.alphas_cumprod[timesteps]
        ratio = kept / (1 - kept)
        return ratio.clamp(max=self.recipe.snr_gamma) / ratio

    def _caption(self, crop: tuple[int, int, int, bool], generator: torch.Generator) -> list[int]:
        """Returns the 77 token ids of the caption of a crop."""
        image, top, left, mirrored = crop
        place = (image, top * self.stride, left * self.stride, mirrored)
        names = self.data.names(cut(self.data.labels, [place], self.recipe.unet_crop * self.stride)[0])
        order = torch.randperm(len(names), generator=generator).tolist()
        empty = torch.rand(1, generator=generator).item() < self.recipe.empty_prompts
        text = '' if empty else 'a photo of a ' + ', '.join(names[i] for i in order)
        return self.tokenizer(text, padding='max_length', truncation=True, max_length=77)['input_ids']
