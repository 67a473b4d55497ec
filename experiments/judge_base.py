"""Evaluates small bases: noise loss on unseen images by caption, attention of the class tokens, and samples."""

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler
from rich.progress import Progress
from torch import Tensor

from experiments.prepare import BASES, bases
from experiments.store import write_bases
from experiments.systems import ROOT
from rass_mm.config import load_config
from rass_mm.demo.base.images import BaseImages, ConfiguredImages
from rass_mm.diffusion.attention import captured_attention, cross_attention_layers
from rass_mm.diffusion.base import DiffusionBase, read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae
from rass_mm.diffusion.prompts import ClassTokens
from rass_mm.diffusion.text import TextEncoder
from rass_mm.files.atomic import atomic_path
from rass_mm.restoration.losses import attention_ratio

logger = logging.getLogger(__name__)
IMAGES = 64
TIMES = (1, 50, 150, 300, 450, 600, 750, 900)
SAMPLES, SAMPLING_STEPS, GUIDANCE = 8, 40, 3.0
DOCS = Path('docs/evidence')


def judge_bases(setting: str) -> None:
    """Evaluates the bases of a data set; writes `results/bases.json` and a picture of samples per base.

    Samples of CamVid's bases are written to the work folder because they resemble its images, whose licence differs.
    """
    data = _validation_images(setting)
    found = {}
    for name in bases(setting):
        found[name] = judge(read_base(BASES / name), data)
        logger.info('%s: %s', name, found[name])
        if not name.endswith('random'):
            place = DOCS / setting if setting == 'scenes' else Path('work_dirs/experiments') / setting
            draw_samples(read_base(BASES / name), data, place / f'samples-{name}.png')
    write_bases(setting, found)


def _validation_images(setting: str) -> BaseImages:
    """Returns the first clean validation images, cropped to a size that the UNet supports."""
    data = load_config(ROOT / 'configs' / setting / 'base.py').val_dataloader.dataset
    data.data_prefix.img_path, data.indices = 'img_dir/val', IMAGES
    with Progress(disable=True) as progress:
        images = ConfiguredImages(data).load(progress)
    height, width = (side // 32 * 32 for side in images.images.shape[-2:])
    return BaseImages(images.images[..., :height, :width], images.labels[..., :height, :width], images.classes)


@torch.no_grad()
def judge(base: DiffusionBase, data: BaseImages) -> dict[str, Any]:
    """Measures the noise loss by timestep and caption, the attention ratio and the PSNR of the autoencoder.

    Noise and timesteps are the same for all bases and captions. `loss` uses the correct caption, `loss_empty`
    an empty one and `loss_wrong` that of another image. The differences measure how much the caption helps the UNet.
    """
    unet, vae, text = load_unet(base), load_vae(base, decoder=True), TextEncoder(base)
    pictures = data.images.float() / 127.5 - 1
    latents = torch.cat([vae.encode(part).latent_dist.mode() * base.scaling_factor for part in pictures.split(8)])
    decoded = torch.cat([vae.decode(part / base.scaling_factor).sample for part in latents.split(8)])
    error = ((decoded.clamp(-1, 1) - pictures) / 2).square().mean().item()
    captions = ['a photo of a ' + ', '.join(data.names(label)) for label in data.labels]
    kinds = {'loss': captions, 'loss_empty': [''] * len(captions), 'loss_wrong': captions[1:] + captions[:1]}
    by_time = {kind: _noise_losses(unet, latents, text.encode_texts(texts)[0]) for kind, texts in kinds.items()}
    ratio, chance = _attention(unet, latents, ClassTokens(base, data.classes), data.labels)
    return {
        'images': len(captions),
        'training': json.loads((base.folder / 'training.json').read_text())['recipe'],
        'weights': base.identity['weights'],
        'autoencoder_PSNR_RGB': round(-10 * float(np.log10(error)), 2),
        **{kind: round(float(np.mean(list(values.values()))), 4) for kind, values in by_time.items()},
        'loss_by_time': by_time['loss'],
        'attention_ratio': round(ratio, 4),
        'attention_chance': round(chance, 4),
    }


def _noise_losses(unet: torch.nn.Module, latents: Tensor, context: Tensor) -> dict[int, float]:
    scheduler = DDPMScheduler(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012)
    losses = {}
    for time in TIMES:
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(time))
        steps = torch.full((len(latents),), time)
        noisy = scheduler.add_noise(latents, noise, steps)
        parts = zip(noisy.split(8), steps.split(8), context.split(8), noise.split(8), strict=True)
        errors = [F.mse_loss(unet(x, t, encoder_hidden_states=c).sample, n).item() for x, t, c, n in parts]
        losses[time] = round(float(np.mean(errors)), 4)
    return losses


def _attention(unet: torch.nn.Module, latents: Tensor, prompt: ClassTokens, labels: Tensor) -> tuple[float, float]:
    layers = cross_attention_layers(unet)
    found = []
    for latent, label in zip(latents.split(8), labels.split(8), strict=True):
        context = prompt(latent)
        with captured_attention(unet, layers) as maps:
            unet(latent, 1, encoder_hidden_states=context.context)
        found.append(torch.stack(attention_ratio(maps, context.owners, label.long())))
    ratio, chance = torch.cat(found, 1).nanmean(1).tolist()
    return ratio, chance


@torch.no_grad()
def draw_samples(base: DiffusionBase, data: BaseImages, target: Path) -> None:
    """Writes a picture of DDIM samples with the captions of validation images, above these images."""
    unet, vae, text = load_unet(base), load_vae(base, decoder=True), TextEncoder(base)
    captions = ['a photo of a ' + ', '.join(data.names(label)) for label in data.labels[:SAMPLES]]
    context = torch.cat([text.encode_texts(captions)[0], text.encode_texts([''] * SAMPLES)[0]])
    scheduler = DDIMScheduler(
        beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False
    )
    scheduler.set_timesteps(SAMPLING_STEPS)
    height, width = (side // base.vae_stride for side in data.images.shape[-2:])
    shape = (SAMPLES, base.configs['unet']['in_channels'], height, width)
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for time in scheduler.timesteps:
        named, empty = unet(torch.cat([latent] * 2), time, encoder_hidden_states=context).sample.chunk(2)
        latent = scheduler.step(empty + GUIDANCE * (named - empty), time, latent).prev_sample
    drawn = vae.decode(latent / base.scaling_factor).sample.clamp(-1, 1) * 127.5 + 127.5
    rows = [torch.cat(list(part), -1).numpy() for part in (drawn, data.images[:SAMPLES].float())]
    page = np.concatenate(rows, 1).transpose(1, 2, 0)[..., ::-1].round().astype(np.uint8)
    with atomic_path(target) as temporary:
        cv2.imwrite(str(temporary), page)
