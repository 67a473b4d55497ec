"""Variational score distillation with one base UNet: generator, critic and teacher are adapters of it."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from mmagic.registry import MODELS
from torch import Tensor, nn

from rass_mm.diffusion.adapters import AdapterSpec
from rass_mm.diffusion.shared_unet import SharedUNet

NEGATIVE_PROMPT = (
    'painting, oil painting, illustration, drawing, art, sketch, cartoon, CG Style, 3D render, unreal engine, '
    'blurring, dirty, messy, worst quality, low quality, frames, watermark, signature, jpeg artifacts, deformed, '
    'lowres, over-smooth'
)
"""What the guided teacher moves away from (OSEDiff's list)."""


@MODELS.register_module()
class VSDLoss(nn.Module):
    """Pulls restored latents to where the base finds them likely (OSEDiff, arXiv 2406.08177; DMD, arXiv 2311.18828).

    At a drawn timestep t the noisy z_t = add_noise(z_H, t) is estimated clean twice: x_reg by the critic, which models
    the restorer's own outputs, and x_fix by the frozen base with guidance over the negative prompt. With w = mean|z_H -
    x_fix| per image, g = (x_reg - x_fix) / w, and the loss is MSE(z_H, stop_gradient(z_H - g)), whose gradient is g up
    to a constant.

    Args:
        loss_weight: lambda_vsd.
        guidance: scale of classifier-free guidance of the teacher.
        timesteps: t is drawn from [first, last).
        adapter: rank and alpha of the critic's LoRA.
        negative_prompt: text the guidance moves away from; it must fit the base's context.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        guidance: float = 7.5,
        timesteps: tuple[int, int] = (20, 980),
        adapter: dict[str, Any] | None = None,
        negative_prompt: str = NEGATIVE_PROMPT,
    ) -> None:
        super().__init__()
        self.loss_weight, self.guidance, self.timesteps = loss_weight, guidance, tuple(timesteps)
        self.adapter = AdapterSpec(**(adapter or {}))
        self.negative_prompt = negative_prompt

    def forward(self, shared: SharedUNet, alphas: Tensor, latent: Tensor, context: Tensor, negative: Tensor) -> Tensor:
        """The generator's loss.

        Args:
            shared: the UNet with its adapters.
            alphas: (1000,) cumulated alphas.
            latent: (B, C, h, w) restored latents, with their graph.
            context: (B, T, C) the prompt.
            negative: (B, T', C) the negative prompt.
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
        """Noise-prediction MSE of the critic on restored latents (B, C, h, w), t drawn from all timesteps.

        Call it, and its backward pass, inside `shared.critic()`.
        """
        latent = latent.detach().float()
        noise = torch.randn_like(latent)
        timesteps = torch.randint(len(alphas), (len(latent),), device=latent.device)
        noisy = add_noise(latent, noise, timesteps, alphas)
        return F.mse_loss(predict(shared.unet, noisy, timesteps, context), noise)


def predict(unet: UNet2DConditionModel, latent: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
    """The UNet's noise prediction, in float32.

    All around it stays in float32 too: bfloat16 rounds the first alphas to 1, and the noise of those steps to nothing.
    """
    return unet(latent.to(unet.dtype), timesteps, encoder_hidden_states=context, return_dict=False)[0].float()


def guided(
    unet: UNet2DConditionModel, latent: Tensor, timesteps: Tensor, context: Tensor, negative: Tensor, scale: float
) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598): negative + scale * (prompt - negative)."""
    prompted, away = predict(unet, latent, timesteps, context), predict(unet, latent, timesteps, negative)
    return away + scale * (prompted - away)


def add_noise(latent: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
    """sqrt(a_t) z + sqrt(1 - a_t) noise, with t (B,) per image."""
    alpha = _per_image(alphas, timesteps, latent)
    return alpha.sqrt() * latent + (1 - alpha).sqrt() * noise


def clean_estimate(noisy: Tensor, predicted: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
    """(z_t - sqrt(1 - a_t) eps) / sqrt(a_t)."""
    alpha = _per_image(alphas, timesteps, noisy)
    return (noisy - (1 - alpha).sqrt() * predicted) / alpha.sqrt()


def vsd_direction(latent: Tensor, own: Tensor, base: Tensor) -> Tensor:
    """(x_reg - x_fix) / mean|z - x_fix|, the mean over each image's own values."""
    weight = (latent - base).abs().mean((1, 2, 3), keepdim=True)
    return (own - base) / weight.clamp(min=1e-8)


def _per_image(alphas: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    return alphas.to(like.device, like.dtype)[timesteps].view(-1, 1, 1, 1)
