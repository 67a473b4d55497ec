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

    The form `residual` is z_H = z_L - eps (PiSA-SR, arXiv 2412.03017). The form `x0` is
    z_H = (z_L - sqrt(1 - a) eps) / sqrt(a), where a is the cumulative alpha at the timestep (OSEDiff, arXiv
    2406.08177). It is the scheduler's estimate of the clean latent.

    Args:
        latent: (B, C, h, w) scaled latent z_L.
        predicted: (B, C, h, w) eps, the output of the UNet for z_L.
        form: 'residual' or 'x0'.
        alpha_bar: cumulative alpha at the timestep, in (0, 1). Required for the form `x0`.

    Returns:
        (B, C, h, w) scaled latent z_H.

    Raises:
        ConfigError: the form is unknown, or `alpha_bar` is missing for the form `x0`.
    """
    if form == 'residual':
        return latent - predicted
    if form == 'x0' and alpha_bar is not None:
        alpha_bar = torch.as_tensor(alpha_bar, dtype=latent.dtype, device=latent.device)
        return (latent - (1 - alpha_bar).sqrt() * predicted) / alpha_bar.sqrt()
    if form == 'x0':
        raise ConfigError("The form 'x0' requires alpha_bar, the cumulative alpha at the timestep. Pass alpha_bar.")
    raise ConfigError(f"form is {form!r}. Set it to 'residual' or 'x0'.")


def cumulated_alphas(scheduler: dict) -> Tensor:
    """Computes the cumulative alphas of the timesteps from the scheduler config of a base.

    Only the noise levels are read. They do not depend on the sampler that the config names (PNDM, DDIM or Euler).

    Returns:
        (T,) float32 for T timesteps (1000 in Stable Diffusion).
    """
    keys = ('num_train_timesteps', 'beta_start', 'beta_end', 'beta_schedule', 'trained_betas')
    with torch.device('cpu'):
        return DDPMScheduler(**{key: scheduler[key] for key in keys if scheduler.get(key) is not None}).alphas_cumprod
