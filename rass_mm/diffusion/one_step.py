"""One step from a low-quality latent to a restored one, in the two published forms."""

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from rass_mm.errors import ConfigError

FORMS = {'residual': 1, 'x0': 999}
"""The two forms and the timestep each was published with."""


def one_step(
    latent: Tensor, predicted: Tensor, form: str = 'residual', alpha_bar: float | Tensor | None = None
) -> Tensor:
    """The restored latent z_H of a low-quality latent z_L and the UNet's prediction for it.

    `residual`: z_H = z_L - eps (PiSA-SR, arXiv 2412.03017). `x0`: z_H = (z_L - sqrt(1 - a) eps) / sqrt(a), with a the
    cumulated alpha of the timestep (OSEDiff, arXiv 2406.08177): the scheduler's own estimate of a clean latent.

    Args:
        latent: (B, C, h, w), scaled.
        predicted: (B, C, h, w), the UNet's output.
        form: 'residual' or 'x0'.
        alpha_bar: cumulated alpha at the timestep, in (0, 1); the x0 form needs it.

    Raises:
        ConfigError: another form, or the x0 form without `alpha_bar`.
    """
    if form == 'residual':
        return latent - predicted
    if form == 'x0' and alpha_bar is not None:
        alpha_bar = torch.as_tensor(alpha_bar, dtype=latent.dtype, device=latent.device)
        return (latent - (1 - alpha_bar).sqrt() * predicted) / alpha_bar.sqrt()
    raise ConfigError(f"form is {form!r}; 'residual' or 'x0' (with its alpha_bar) is needed.")


def cumulated_alphas(scheduler: dict) -> Tensor:
    """(1000,) cumulated alphas of a base's scheduler config, float32.

    Only the noise levels are read: which sampler the folder names (PNDM, DDIM, Euler) makes no difference to them.
    """
    keys = ('num_train_timesteps', 'beta_start', 'beta_end', 'beta_schedule', 'trained_betas')
    with torch.device('cpu'):
        return DDPMScheduler(**{key: scheduler[key] for key in keys if scheduler.get(key) is not None}).alphas_cumprod
