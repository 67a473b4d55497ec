"""Both one-step forms, compared with float64 and with diffusers' scheduler."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, PNDMScheduler

from rass_mm.diffusion.known_bases import LAYOUTS, SCHEDULER
from rass_mm.diffusion.one_step import FORMS, cumulated_alphas, one_step
from rass_mm.errors import ConfigError

GENERATOR = torch.Generator().manual_seed(0)
LATENT, PREDICTED = (torch.randn(2, 4, 6, 8, generator=GENERATOR) for _ in range(2))


def test_residual_form_subtracts_the_prediction():
    expected = LATENT.double() - PREDICTED.double()
    torch.testing.assert_close(one_step(LATENT, PREDICTED).double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(one_step(LATENT, PREDICTED, 'residual', 0.5), one_step(LATENT, PREDICTED))


@pytest.mark.parametrize('alpha', [0.9991, 0.5, 0.00466])
def test_x0_form_equals_float64(alpha):
    expected = (LATENT.double() - math.sqrt(1 - alpha) * PREDICTED.double()) / math.sqrt(alpha)
    for given in (alpha, torch.tensor(alpha)):
        found = one_step(LATENT, PREDICTED, 'x0', given)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())
        assert found.dtype == torch.float32
    assert one_step(LATENT.bfloat16(), PREDICTED.bfloat16(), 'x0', alpha).dtype == torch.bfloat16


@pytest.mark.parametrize('timestep', [999, 500, 1])
def test_x0_form_equals_the_schedulers_estimate(timestep):
    scheduler = DDPMScheduler.from_config(SCHEDULER)
    expected = scheduler.step(PREDICTED, timestep, LATENT).pred_original_sample
    found = one_step(LATENT, PREDICTED, 'x0', cumulated_alphas(SCHEDULER)[timestep].item())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_x0_form_removes_added_noise():
    scheduler = DDPMScheduler.from_config(SCHEDULER)
    steps = torch.full((2,), 700)
    noisy = scheduler.add_noise(LATENT, PREDICTED, steps)
    found = one_step(noisy, PREDICTED, 'x0', cumulated_alphas(SCHEDULER)[700])
    torch.testing.assert_close(found, LATENT, rtol=0, atol=1e-5)


def test_forms_have_their_published_timesteps():
    assert FORMS == {'residual': 1, 'x0': 999}


@pytest.mark.parametrize(
    ('form', 'alpha', 'message'),
    [('epsilon', 0.5, "form is 'epsilon'. Set it to 'residual' or 'x0'"), ('x0', None, "'x0' requires alpha_bar")],
)
def test_other_forms_are_refused(form, alpha, message):
    with pytest.raises(ConfigError, match=message):
        one_step(LATENT, PREDICTED, form, alpha)


def test_alphas_equal_the_scaled_linear_schedule():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    found = cumulated_alphas(LAYOUTS['sd21-base']['scheduler'])
    torch.testing.assert_close(found.double(), (1 - betas).cumprod(0), rtol=1e-5, atol=1e-8)
    assert found.dtype == torch.float32


@pytest.mark.parametrize('sampler', [PNDMScheduler, DDIMScheduler])
def test_the_folders_sampler_makes_no_difference(sampler):
    config = {**SCHEDULER, '_class_name': sampler.__name__, 'skip_prk_steps': True, 'set_alpha_to_one': False}
    levels = sampler(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012).alphas_cumprod
    torch.testing.assert_close(cumulated_alphas(config), levels)
    linear = {'num_train_timesteps': 100, 'beta_start': 1e-4, 'beta_end': 0.02, 'beta_schedule': 'linear'}
    torch.testing.assert_close(cumulated_alphas(linear), sampler(**linear).alphas_cumprod)


def test_alphas_have_values_under_the_meta_device():
    with torch.device('meta'):
        assert cumulated_alphas(SCHEDULER)[1].item() == pytest.approx(0.9983, abs=1e-4)
