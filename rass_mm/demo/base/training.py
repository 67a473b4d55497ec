"""Training of a small base on labelled images: first the autoencoder, then the text-conditional UNet.

Training takes minutes on a CPU. The result is a Stable Diffusion folder in diffusers layout, which is read by the same
code as a full-size base. It is stored in the cache folder under a hash of its recipe and copied to the target folder.
"""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from transformers import CLIPTextModel

from rass_mm.demo.base.cached import copy_base, locked, read_record
from rass_mm.demo.base.images import BaseImages, ConfiguredImages, cut, draw_scenes, random_crops
from rass_mm.demo.base.linear_start import start_linear
from rass_mm.diffusion.base import DiffusionBase, read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae, load_whole
from rass_mm.diffusion.base_weights import weights_hash
from rass_mm.diffusion.known_bases import LAYOUTS, build_models, write_configs
from rass_mm.diffusion.prompts import cache_folder
from rass_mm.diffusion.text import load_tokenizer
from rass_mm.errors import BaseFolderError, CheckpointError, ConfigError
from rass_mm.files.atomic import atomic_path, write_text
from rass_mm.files.hashing import json_sha256
from rass_mm.files.locks import held_beside
from rass_mm.files.tensors import first_line, read_tensors

logger = logging.getLogger(__name__)

FORMAT = 3
"""Part of the cache key. Increase it when a change of the code below changes the trained weights."""
STATE_INTERVAL = 100
ENCODED_TOGETHER = 4


@dataclass(frozen=True)
class BaseRecipe:
    """Settings that determine the trained weights of a small base.

    Args:
        scenes: number of drawn scenes, unless other images are given.
        image_size: side of a drawn scene in pixels.
        vae_steps: number of training steps of the autoencoder.
        vae_batch: number of crops per training step of the autoencoder.
        vae_crop: side of a crop for the autoencoder, in pixels.
        vae_rate: maximum learning rate of the autoencoder.
        unet_steps: number of training steps of the UNet and the text encoder.
        unet_batch: number of crops per training step of the UNet.
        unet_crop: side of a crop for the UNet, in latent pixels.
        unet_rate: maximum learning rate of the UNet and the text encoder.
        empty_prompts: probability of an empty caption.
        seed: seed of the weights, crops and noise.
        snr_gamma: gamma of the Min-SNR loss weights (Hang et al., ICCV 2023); None weights all timesteps equally.
    """

    scenes: int = 512
    image_size: int = 128
    vae_steps: int = 160
    vae_batch: int = 8
    vae_crop: int = 64
    vae_rate: float = 2e-3
    unet_steps: int = 200
    unet_batch: int = 16
    unet_crop: int = 16
    unet_rate: float = 1e-3
    empty_prompts: float = 0.1
    seed: int = 0
    snr_gamma: float | None = None

    def check(self, size: int | None = None) -> None:
        """Checks that the networks can process the crops, and that the images are at least as large.

        Args:
            size: shorter side of the images in pixels; None for drawn scenes.

        Raises:
            ConfigError: a crop has a wrong size.
        """
        layout, size = LAYOUTS['scenes-tiny'], self.image_size if size is None else size
        stride, multiple = (2 ** (len(layout[part]['block_out_channels']) - 1) for part in ('vae', 'unet'))
        for name, side, step, most in (
            ('vae-crop', self.vae_crop, stride, size),
            ('unet-crop', self.unet_crop, multiple, size // stride),
        ):
            if side % step or not step <= side <= most:
                raise ConfigError(
                    f'--{name} is {side}, but it must be a multiple of {step} from {step} to {most // step * step}, '
                    f'because the images have {size} pixels. Set --{name} to such a number.'
                )

    def key(self, source: ConfiguredImages | None = None, start: 'Start | None' = None) -> str:
        """Returns the cache key, a hash of `FORMAT`, the recipe, the layout and, if given, images and initial base."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        parts = [FORMAT, given, LAYOUTS['scenes-tiny'], *([source.key] if source else [])]
        parts += [start.record] if start else []
        return json_sha256(parts)[:12]


@dataclass(frozen=True)
class Start:
    """Small base that provides the initial weights of a training run.

    Its latent scaling factor is kept, unless `fresh_unet` is set and the autoencoder is trained further.

    Args:
        base: the base.
        fresh_unet: whether to use only the autoencoder. The UNet and the text encoder then start from random weights.
    """

    base: DiffusionBase
    fresh_unet: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """Values that identify the initial weights in the record of the training."""
        parts = ('vae',) if self.fresh_unet else ('unet', 'vae', 'text_encoder')
        return {
            'weights': weights_hash(self.base.folder, parts),
            'scale': self.base.scaling_factor,
            'fresh_unet': self.fresh_unet,
        }

    def load(self, models: dict[str, nn.Module]) -> None:
        """Loads the weights into newly built models, a dict with the keys 'vae', 'unet' and 'text_encoder'.

        Raises:
            BaseFolderError: the folder is damaged or has a different layout.
        """
        loaded = {'vae': load_vae(self.base, decoder=True)}
        if not self.fresh_unet:
            loaded |= {
                'unet': load_unet(self.base),
                'text_encoder': load_whole(CLIPTextModel, self.base.folder, 'text_encoder'),
            }
        for name, part in loaded.items():
            try:
                models[name].load_state_dict(part.state_dict())
            except RuntimeError as error:
                raise BaseFolderError(
                    f'{self.base.folder / name} cannot initialize the training: its layout is not that of the small '
                    f'base ({str(error).splitlines()[-1].strip()}). Pass a folder written by `rass-mm make-base`.'
                ) from None
        models['vae'].register_to_config(scaling_factor=self.base.scaling_factor)


def make_base(
    folder: Path,
    recipe: BaseRecipe | None = None,
    source: ConfiguredImages | None = None,
    start: Start | None = None,
) -> dict[str, float]:
    """Writes a small base to `folder`. The base is copied from the cache or, if it is not cached, trained.

    Interrupted training resumes from its last checkpoint.

    Args:
        folder: target folder of the base.
        recipe: sizes, steps, rates and seed.
        source: labelled training images; None draws scenes.
        start: a base with the initial weights; None initializes them randomly.

    Returns:
        A dict with `vae_psnr` in dB and the final losses `vae_loss` and `unet_loss`. The loss of a part that was not
        trained is absent.

    Raises:
        BaseFolderError: the folder contains other files, or `start` is damaged or has a different layout.
        DataError: the images cannot be used, or another command writes another base to the folder.
        ConfigError: a crop does not fit the networks or the images.
    """
    recipe = recipe or BaseRecipe()
    recipe.check()
    key = recipe.key(source, start)
    record = folder / 'training.json'
    if folder.exists() and not folder.is_dir():
        raise BaseFolderError(f'{folder} is a file, but a folder was expected. Choose another path, or move the file.')
    found = read_record(record)
    if found and found['key'] == key:
        return found['losses']
    if folder.exists() and any(folder.iterdir()):
        raise BaseFolderError(
            f'{folder} is not empty and does not contain this base. Choose a new folder, or remove this one first.'
        )
    cached = cache_folder() / 'bases' / key
    cached.parent.mkdir(parents=True, exist_ok=True)
    # Another command that makes the same base finishes first; one that writes another base to this folder is an error.
    with locked(cached.with_name(f'{key}.lock')), held_beside(folder):
        if not read_record(cached / 'training.json'):
            _BaseTraining(cached, recipe, key, source, start).run()
        copy_base(cached, folder, key)
    return read_record(record)['losses']


class _BaseTraining:
    """Training of one base in its own folder. After an interruption, a new run in this folder resumes it."""

    def __init__(
        self, folder: Path, recipe: BaseRecipe, key: str, source: ConfiguredImages | None, start: Start | None
    ) -> None:
        self.folder, self.recipe, self.key, self.source, self.start = folder, recipe, key, source, start
        self.layout = write_configs(folder, LAYOUTS['scenes-tiny'], f'scenes-tiny-{key}')
        torch.manual_seed(recipe.seed)
        self.models = build_models(self.layout)
        if start:
            start.load(self.models)
        self.losses: dict[str, float] = {}

    def run(self) -> None:
        """Trains both parts and writes the weights; `training.json` is written last and marks the folder complete."""
        recipe = self.recipe
        columns = (
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, TextColumn('loss {task.fields[loss]:.4f}')) as self.progress:
            data = self.source.load(self.progress) if self.source else self._scenes()
            recipe.check(min(data.images.shape[-2:]))
            vae = self.models['vae']
            if not self.start:
                start_linear(vae, data.images, torch.Generator().manual_seed(recipe.seed))
            self._fit('vae', [vae], recipe.vae_steps, recipe.vae_rate, lambda g: self._vae_loss(data.images, g))
            latents = self._latents(data.images)
            parts = [self.models['unet'], self.models['text_encoder']]
            step = _NoiseLoss(parts, latents, data, load_tokenizer(read_base(self.folder)), recipe)
            self._fit('unet', parts, recipe.unet_steps, recipe.unet_rate, step)
        for name, model in self.models.items():
            model.save_pretrained(self.folder / name, safe_serialization=True)
        for state in self.folder.glob('*.pt'):
            state.unlink()
        record = {'key': self.key, 'recipe': asdict(recipe), 'losses': self.losses, 'classes': list(data.classes)}
        record['start'] = self.start and self.start.record
        write_text(self.folder / 'training.json', json.dumps(record, indent=2))

    def _scenes(self) -> BaseImages:
        return draw_scenes(self.recipe.scenes, self.recipe.image_size, self.progress)

    def _vae_loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Computes the L1 reconstruction loss of random crops plus a weak KL term towards N(0, 1)."""
        recipe = self.recipe
        crops = random_crops(recipe.vae_batch, len(images), images.shape[-2:], recipe.vae_crop, generator)
        batch = cut(images, crops, recipe.vae_crop).float() / 127.5 - 1
        posterior = self.models['vae'].encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = self.models['vae'].decode(posterior.mean + posterior.std * noise).sample
        return F.l1_loss(decoded, batch) + 1e-5 * posterior.kl().mean() / batch[0, 0].numel()

    @torch.no_grad()
    def _latents(self, images: Tensor) -> Tensor:
        """Returns the scaled latents of all images and stores their scale in the config of the VAE.

        The scaled latents have a standard deviation of 1, unless the scale of the initial base is kept.
        """
        vae = self.models['vae'].eval().requires_grad_(False)
        chunks = [vae.encode(chunk.float() / 127.5 - 1).latent_dist.mode() for chunk in images.split(ENCODED_TOGETHER)]
        latents = torch.cat(chunks)
        scale = round(1.0 / latents.std().item(), 5)
        if self.start and not (self.start.fresh_unet and self.recipe.vae_steps):
            scale = self.start.base.scaling_factor  # an already trained UNet expects latents at this scale
        vae.register_to_config(scaling_factor=scale)
        decoded = vae.decode(chunks[0]).sample
        error = ((decoded - (images[:ENCODED_TOGETHER].float() / 127.5 - 1)) / 2).square().mean().item()
        self.losses['vae_psnr'] = round(-10 * math.log10(error), 2)
        return latents * scale

    def _fit(
        self, name: str, parts: list[nn.Module], steps: int, rate: float, loss_of: Callable[[torch.Generator], Tensor]
    ) -> None:
        """Trains with AdamW and a one-cycle learning rate. Saves the state every `STATE_INTERVAL` steps."""
        if steps == 0:
            return
        parameters = [parameter for part in parts for parameter in part.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
        state_file = self.folder / f'{name}.pt'
        first, mean = _restore(state_file, parts, optimizer, schedule)
        task = self.progress.add_task(name, total=steps, completed=first, loss=mean)
        for step in range(first, steps):
            # One generator per step, so that a resumed run draws the same values as an uninterrupted one.
            loss = loss_of(torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            mean = loss.item() if math.isnan(mean) else 0.95 * mean + 0.05 * loss.item()
            self.progress.update(task, advance=1, loss=mean)
            if (step + 1) % STATE_INTERVAL == 0 or step + 1 == steps:
                _store(state_file, parts, optimizer, schedule, step + 1, mean)
        self.losses[f'{name}_loss'] = round(mean, 5)


class _NoiseLoss:
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


def _store(file: Path, parts: list[nn.Module], optimizer: Any, schedule: Any, step: int, mean: float) -> None:
    state = {
        'parts': [part.state_dict() for part in parts],
        'optimizer': optimizer.state_dict(),
        'schedule': {k: v for k, v in schedule.state_dict().items() if k in ('last_epoch', '_step_count', '_last_lr')},
        'step': step,
        'mean': mean,
    }
    with atomic_path(file) as temporary:
        torch.save(state, temporary)


def _restore(file: Path, parts: list[nn.Module], optimizer: Any, schedule: Any) -> tuple[int, float]:
    """Loads the stored training state, if any, and returns the next step and the mean loss so far."""
    if not file.is_file():
        return 0, math.nan
    fix = f'Delete {file}, so that this part of the training starts again.'
    try:
        state = read_tensors(file)
        for part, values in zip(parts, state['parts'], strict=True):
            part.load_state_dict(values)
        optimizer.load_state_dict(state['optimizer'])
        schedule.load_state_dict(state['schedule'])
        return int(state['step']), float(state['mean'])
    except CheckpointError as error:
        raise CheckpointError(f'{str(error)} {fix}') from None
    except Exception as error:  # on contents that make no sense, almost any error
        reason = first_line(error)
        raise CheckpointError(f'{file} is not the state of this training ({reason}). {fix}') from None
