"""Variational score distillation with a single base UNet that is shared by generator, critic and teacher."""

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from mmagic.registry import MODELS
from torch import Tensor, nn

from rass_mm.config.arguments import NotNegative
from rass_mm.diffusion.adapters import AdapterSettings, AdapterSpec
from rass_mm.diffusion.shared_unet import SharedUNet

NEGATIVE_PROMPT = (
    'painting, oil painting, illustration, drawing, art, sketch, cartoon, CG Style, 3D render, unreal engine, '
    'blurring, dirty, messy, worst quality, low quality, frames, watermark, signature, jpeg artifacts, deformed, '
    'lowres, over-smooth'
)
"""Negative prompt of the teacher's guidance (OSEDiff's list)."""


@MODELS.register_module()
class VSDLoss(nn.Module):
    """Variational score distillation loss of OSEDiff (arXiv 2406.08177; DMD, arXiv 2311.18828) on restored latents.

    At a random timestep t, noise is added to the restored latent z_H, which gives z_t. The clean latent is estimated
    twice from z_t: x_reg by the critic, which models the outputs of the restorer, and x_fix by the teacher, the frozen
    base with guidance against the negative prompt. With w = mean|z_H - x_fix| per image and g = (x_reg - x_fix) / w,
    the loss is MSE(z_H, stop_gradient(z_H - g)), whose gradient is g up to a constant.

    Args:
        loss_weight: weight of the loss, lambda_vsd.
        guidance: scale of the teacher's classifier-free guidance.
        timesteps: first (inclusive) and last (exclusive) of the timesteps from which t is drawn.
        adapter: rank and alpha of the critic's LoRA.
        negative_prompt: negative prompt of the guidance. It must not have more tokens than the text encoder accepts.
    """

    def __init__(
        self,
        loss_weight: NotNegative = 1.0,
        guidance: float = 7.5,
        timesteps: tuple[int, int] = (20, 980),
        adapter: AdapterSettings | None = None,
        negative_prompt: str = NEGATIVE_PROMPT,
    ) -> None:
        super().__init__()
        self.loss_weight, self.guidance, self.timesteps = loss_weight, guidance, tuple(timesteps)
        self.adapter = AdapterSpec(**(adapter or {}))
        self.negative_prompt = negative_prompt

    def forward(self, shared: SharedUNet, alphas: Tensor, latent: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        """Computes the loss of the generator.

        Args:
            shared: the UNet with its adapters.
            alphas: (1000,) cumulative alphas.
            latent: (B, C, h, w) restored latents, with gradients.
            context: (B, T, C) context of the prompt.
            negative: (B, T', C) context of the negative prompt.
        """
        latent = latent.float()
        noise = torch.randn_like(latent)
        timesteps = torch.randint(*self.timesteps, (len(latent),), device=latent.device)
        with torch.no_grad():
            noisy = add_noise(latent, noise, timesteps, alphas)
            with shared.critic():
                own = clean_estimate(noisy, predict(shared.unet, noisy, timesteps, context), timesteps, alphas)
            with shared.teacher():
                base = guided(shared.unet, noisy, timesteps, context, negative, self.guidance)
                base = clean_estimate(noisy, base, timesteps, alphas)
            direction = vsd_direction(latent, own, base)
        return self.loss_weight * F.mse_loss(latent, (latent - direction).detach())

    def critic_loss(self, shared: SharedUNet, alphas: Tensor, latent: Tensor, context: Tensor) -> Tensor:
        """Computes the critic's noise-prediction MSE on restored latents (B, C, h, w), with t from all timesteps.

        Both this call and its backward pass must be inside `shared.critic()`.
        """
        latent = latent.detach().float()
        noise = torch.randn_like(latent)
        timesteps = torch.randint(len(alphas), (len(latent),), device=latent.device)
        noisy = add_noise(latent, noise, timesteps, alphas)
        return F.mse_loss(predict(shared.unet, noisy, timesteps, context), noise)


def predict(unet: UNet2DConditionModel, latent: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
    """Returns the UNet's noise prediction in float32.

    The surrounding computations use float32 too, because bfloat16 rounds the first alphas to 1 and thus removes the
    noise of those timesteps.
    """
    return unet(latent.to(unet.dtype), timesteps, encoder_hidden_states=context, return_dict=False)[0].float()


def guided(
    unet: UNet2DConditionModel, latent: Tensor, timesteps: Tensor, context: Tensor, negative: Tensor, scale: float
) -> Tensor:
    """Computes the noise prediction with classifier-free guidance (arXiv 2207.12598).

    The result is n + scale * (p - n), where n is the prediction for `negative` and p is the prediction for `context`.
    """
    prompted, away = predict(unet, latent, timesteps, context), predict(unet, latent, timesteps, negative)
    return away + scale * (prompted - away)


def add_noise(latent: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
    """Adds noise to latents (B, C, h, w): sqrt(a_t) z + sqrt(1 - a_t) noise, with one timestep t per image."""
    alpha = _per_image(alphas, timesteps, latent)
    return alpha.sqrt() * latent + (1 - alpha).sqrt() * noise


def clean_estimate(noisy: Tensor, predicted: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
    """Estimates clean latents from noisy ones and the predicted noise: (z_t - sqrt(1 - a_t) eps) / sqrt(a_t)."""
    alpha = _per_image(alphas, timesteps, noisy)
    return (noisy - (1 - alpha).sqrt() * predicted) / alpha.sqrt()


def vsd_direction(latent: Tensor, own: Tensor, base: Tensor) -> Tensor:
    """Computes the direction g of `VSDLoss`: (own - base) / mean|latent - base|, with the mean per image."""
    weight = (latent - base).abs().mean((1, 2, 3), keepdim=True)
    return (own - base) / weight.clamp(min=1e-8)


def _per_image(alphas: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    return alphas.to(like.device, like.dtype)[timesteps].view(-1, 1, 1, 1)
