"""Training of a small base on labelled images: first the autoencoder, then the text-conditional UNet.

Training takes minutes on a CPU. The result is a Stable Diffusion folder in diffusers layout, which is read by the same
code as a full-size base. It is stored in the cache folder under a hash of its recipe and copied to the target folder.
"""

import io
import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from rass_mm.demo.base.cached import copy_base, locked, read_record
from rass_mm.demo.base.images import BaseImages, ConfiguredImages, cut, draw_scenes, random_crops
from rass_mm.demo.base.linear_start import start_linear
from rass_mm.demo.base.noise_loss import NoiseLoss
from rass_mm.demo.base.recipe import BaseRecipe, Start
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_terms import base_terms
from rass_mm.diffusion.known_bases import LAYOUTS, build_models, write_configs
from rass_mm.diffusion.text import load_tokenizer
from rass_mm.errors import BaseFolderError, CheckpointError
from rass_mm.files.atomic import system_errors, write_bytes, write_text
from rass_mm.files.locks import held_beside
from rass_mm.files.tensors import first_line, read_tensors
from rass_mm_cli.bases import cache_folder
from rass_mm_cli.licences import Term, merged, training_terms

logger = logging.getLogger(__name__)

STATE_INTERVAL = 100
ENCODED_TOGETHER = 4


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
            step = NoiseLoss(parts, latents, data, load_tokenizer(read_base(self.folder)), recipe)
            self._fit('unet', parts, recipe.unet_steps, recipe.unet_rate, step)
        for name, model in self.models.items():
            with system_errors(self.folder / name):
                model.save_pretrained(self.folder / name, safe_serialization=True)
        for state in self.folder.glob('*.pt'):
            state.unlink()
        record = {'key': self.key, 'recipe': asdict(recipe), 'losses': self.losses, 'classes': list(data.classes)}
        record['start'] = self.start and self.start.record
        record['terms'] = self._terms()
        write_text(self.folder / 'training.json', json.dumps(record, indent=2))

    def _terms(self) -> list[Term]:
        """Returns the licences of the training images, and those of the base that the training started from."""
        dataset = self.source.dataset if self.source else {'type': 'ScenesDataset'}
        before = base_terms(self.start.base.folder, self.start.base.identity) if self.start else []
        return merged(before, training_terms({'train_dataloader': {'dataset': dataset}}))

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


def _store(file: Path, parts: list[nn.Module], optimizer: Any, schedule: Any, step: int, mean: float) -> None:
    state = {
        'parts': [part.state_dict() for part in parts],
        'optimizer': optimizer.state_dict(),
        'schedule': {k: v for k, v in schedule.state_dict().items() if k in ('last_epoch', '_step_count', '_last_lr')},
        'step': step,
        'mean': mean,
    }
    content = io.BytesIO()  # on a full disk, torch.save to a file raises a RuntimeError
    torch.save(state, content)
    write_bytes(file, content.getbuffer())


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
