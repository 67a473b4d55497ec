"""One-step restoration of a low-quality latent, in the two published forms."""

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from rass_mm.errors import ConfigError

FORMS = {'residual': 1, 'x0': 999}
"""The two forms, with their published timesteps."""


def one_step(
    latent: Tensor, predicted: Tensor, form: str = 'residual', alpha_bar: float | Tensor | None = None
) -> Tensor:
    """Computes the restored latent z_H from a low-quality latent z_L and the UNet's prediction for it.

    `residual`: z_H = z_L - eps (PiSA-SR, arXiv 2412.03017). `x0`: z_H = (z_L - sqrt(1 - a) eps) / sqrt(a), where a is
    the cumulative alpha of the timestep (OSEDiff, arXiv 2406.08177). This is the scheduler's estimate of the clean
    latent.

    Args:
        latent: (B, C, h, w), scaled.
        predicted: (B, C, h, w), the output of the UNet.
        form: 'residual' or 'x0'.
        alpha_bar: cumulative alpha at the timestep, in (0, 1). Required for the x0 form.

    Raises:
        ConfigError: the form is unknown, or `alpha_bar` is missing for the x0 form.
    """
    if form == 'residual':
        return latent - predicted
    if form == 'x0' and alpha_bar is not None:
        alpha_bar = torch.as_tensor(alpha_bar, dtype=latent.dtype, device=latent.device)
        return (latent - (1 - alpha_bar).sqrt() * predicted) / alpha_bar.sqrt()
    raise ConfigError(f"form is {form!r}, but it must be 'residual' or 'x0' (with alpha_bar).")


def cumulated_alphas(scheduler: dict) -> Tensor:
    """Computes the (1000,) cumulative alphas of a base's scheduler config, float32.

    Only the noise levels are read. They do not depend on the sampler in the folder (PNDM, DDIM, Euler).
    """
    keys = ('num_train_timesteps', 'beta_start', 'beta_end', 'beta_schedule', 'trained_betas')
    with torch.device('cpu'):
        return DDPMScheduler(**{key: scheduler[key] for key in keys if scheduler.get(key) is not None}).alphas_cumprod
