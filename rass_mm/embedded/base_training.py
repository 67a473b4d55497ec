"""Trains the small base on procedural scenes: autoencoder, then text-conditional UNet. Seconds to minutes on a CPU.

The result is an ordinary Stable Diffusion folder in diffusers layout, read by the same code as the real one. It is kept
in the cache folder under a hash of its recipe, and copied to where it is asked for.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from rass_mm.atomic import atomic_path, write_text
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.prompts import cache_folder
from rass_mm.diffusion.text import load_tokenizer
from rass_mm.embedded.layouts import LAYOUTS, build_models, write_configs
from rass_mm.embedded.scenes import SCENE_CLASSES, make_scene
from rass_mm.errors import BaseFolderError

FORMAT = 2
"""Part of the cache key: raise it when a change below changes the trained weights."""
STATE_INTERVAL = 100
SCENE_STREAM = 1_000_000_007
"""First scene seed of the base's own images; data set splits draw theirs from hashed sequences."""


@dataclass(frozen=True)
class BaseRecipe:
    """Everything that decides the trained weights.

    Sizes are pixels for the autoencoder and latent pixels for the UNet; smaller crops buy more steps per minute.
    """

    scenes: int = 512
    image_size: int = 128
    vae_steps: int = 160
    vae_batch: int = 8
    vae_crop: int = 64
    vae_rate: float = 5e-3
    unet_steps: int = 200
    unet_batch: int = 16
    unet_crop: int = 16
    unet_rate: float = 1e-3
    empty_prompts: float = 0.1
    seed: int = 0

    @property
    def key(self) -> str:
        """Cache key: recipe, layout and code format."""
        parts = json.dumps([FORMAT, asdict(self), LAYOUTS['scenes-tiny']], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:12]


def make_base(folder: Path, recipe: BaseRecipe | None = None) -> dict[str, float]:
    """Puts the trained scene base into `folder`, training it first if the cache has none; returns its final losses.

    Training that was stopped goes on where its last checkpoint left it.

    Raises:
        BaseFolderError: the folder holds something else.
    """
    recipe = recipe or BaseRecipe()
    record = folder / 'training.json'
    if record.is_file() and json.loads(record.read_text())['key'] == recipe.key:
        return json.loads(record.read_text())['losses']
    if folder.exists() and any(folder.iterdir()):
        raise BaseFolderError(
            f'{folder} is not empty and holds another base. Choose a new folder, or remove this one first.'
        )
    cached = cache_folder() / 'bases' / recipe.key
    if not (cached / 'training.json').is_file():
        _BaseTraining(cached, recipe).run()
    folder.parent.mkdir(parents=True, exist_ok=True)
    copy = folder.with_name(f'.{folder.name}.part')
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(cached, copy, ignore=shutil.ignore_patterns('*.pt'))
    if folder.exists():
        folder.rmdir()
    copy.rename(folder)
    return json.loads(record.read_text())['losses']


class _BaseTraining:
    """One training, in a folder of its own; `run` may be called again after a stop."""

    def __init__(self, folder: Path, recipe: BaseRecipe) -> None:
        self.folder = folder
        self.recipe = recipe
        self.layout = write_configs(folder, LAYOUTS['scenes-tiny'], f'scenes-tiny-{recipe.key}')
        torch.manual_seed(recipe.seed)
        self.models = build_models(self.layout)
        self.losses: dict[str, float] = {}

    def run(self) -> None:
        """Trains both parts and writes the folder's weights; `training.json` comes last and marks it complete."""
        recipe = self.recipe
        columns = (
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, TextColumn('loss {task.fields[loss]:.4f}')) as self.progress:
            images, captions = self._scenes()
            vae = self.models['vae']
            self._fit(
                'vae', [vae], recipe.vae_steps, recipe.vae_rate, lambda generator: self._vae_loss(images, generator)
            )
            latents = self._latents(images)
            prompts = self._prompts(captions)
            parts = [self.models['unet'], self.models['text_encoder']]
            step = _NoiseLoss(parts, latents, prompts, recipe)
            self._fit('unet', parts, recipe.unet_steps, recipe.unet_rate, step)
        for name, model in self.models.items():
            model.save_pretrained(self.folder / name, safe_serialization=True)
        for state in self.folder.glob('*.pt'):
            state.unlink()
        record = {'key': recipe.key, 'recipe': asdict(recipe), 'losses': self.losses, 'classes': list(SCENE_CLASSES)}
        write_text(self.folder / 'training.json', json.dumps(record, indent=2))

    def _scenes(self) -> tuple[Tensor, list[list[str]]]:
        """Images (N, 3, S, S) uint8 RGB, and the names of the classes that cover at least 1 % of each."""
        size = self.recipe.image_size
        task = self.progress.add_task('scenes', total=self.recipe.scenes, loss=math.nan)
        images, captions = [], []
        for index in range(self.recipe.scenes):
            image, label = make_scene(SCENE_STREAM + index, size, size)
            shares = np.bincount(label.ravel(), minlength=256)[: len(SCENE_CLASSES)] / label.size
            images.append(torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))))
            captions.append([name for name, share in zip(SCENE_CLASSES, shares, strict=True) if share >= 0.01])
            self.progress.advance(task)
        return torch.stack(images), captions

    def _vae_loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """L1 of a random crop's round trip plus a light pull of the posterior towards N(0, 1)."""
        recipe = self.recipe
        batch = _crops(images, recipe.vae_batch, recipe.vae_crop, generator).float() / 127.5 - 1
        posterior = self.models['vae'].encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = self.models['vae'].decode(posterior.mean + posterior.std * noise).sample
        return F.l1_loss(decoded, batch) + 1e-5 * posterior.kl().mean() / batch[0, 0].numel()

    @torch.no_grad()
    def _latents(self, images: Tensor) -> Tensor:
        """Latents of all scenes scaled to unit spread; the scale goes into the VAE's config, as in Stable Diffusion."""
        vae = self.models['vae'].eval().requires_grad_(False)
        chunks = [vae.encode(chunk.float() / 127.5 - 1).latent_dist.mode() for chunk in images.split(16)]
        latents = torch.cat(chunks)
        scale = round(1.0 / latents.std().item(), 5)
        vae.register_to_config(scaling_factor=scale)
        with torch.no_grad():
            decoded = vae.decode(chunks[0]).sample
        error = ((decoded - (images[:16].float() / 127.5 - 1)) / 2).square().mean().item()
        self.losses['vae_psnr'] = round(-10 * math.log10(error), 2)
        return latents * scale

    def _prompts(self, captions: list[list[str]]) -> Callable[[int, torch.Generator], list[int]]:
        """A function (scene, generator) -> framed token ids of a caption; the names come in a random order."""
        tokenizer = load_tokenizer(read_base(self.folder))

        def framed(scene: int, generator: torch.Generator) -> list[int]:
            names = captions[scene]
            order = torch.randperm(len(names), generator=generator).tolist()
            empty = torch.rand(1, generator=generator).item() < self.recipe.empty_prompts
            text = '' if empty else 'a photo of a ' + ', '.join(names[i] for i in order)
            return tokenizer(text, padding='max_length', truncation=True, max_length=77)['input_ids']

        return framed

    def _fit(
        self, name: str, parts: list[nn.Module], steps: int, rate: float, loss_of: Callable[[torch.Generator], Tensor]
    ) -> None:
        """AdamW with a one-cycle rate; saves the state every `STATE_INTERVAL` steps, to go on from after a stop."""
        parameters = [parameter for part in parts for parameter in part.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
        state_file = self.folder / f'{name}.pt'
        first, mean = _restore(state_file, parts, optimizer, schedule)
        task = self.progress.add_task(name, total=steps, completed=first, loss=mean)
        for step in range(first, steps):
            # One generator per step: a resumed run draws what the unstopped one would have drawn.
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
    """The noise-prediction loss of latent diffusion (Ho et al. 2020, eq. 14) on random crops of cached latents."""

    def __init__(self, parts: list[nn.Module], latents: Tensor, prompts: Callable, recipe: BaseRecipe) -> None:
        self.unet, self.text = parts
        self.latents, self.prompts, self.recipe = latents, prompts, recipe
        self.scheduler = DDPMScheduler(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012)

    def __call__(self, generator: torch.Generator) -> Tensor:
        recipe = self.recipe
        scenes = torch.randint(len(self.latents), (recipe.unet_batch,), generator=generator)
        clean = _crops(self.latents, recipe.unet_batch, recipe.unet_crop, generator, scenes)
        ids = torch.tensor([self.prompts(int(scene), generator) for scene in scenes])
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(1000, (len(clean),), generator=generator)
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        context = self.text(input_ids=ids).last_hidden_state
        return F.mse_loss(self.unet(noisy, timesteps, encoder_hidden_states=context).sample, noise)


def _crops(images: Tensor, count: int, size: int, generator: torch.Generator, chosen: Tensor | None = None) -> Tensor:
    """(count, C, size, size) random crops, half of them mirrored, of random or chosen images."""
    if chosen is None:
        chosen = torch.randint(len(images), (count,), generator=generator)
    tops = torch.randint(images.shape[-2] - size + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(images.shape[-1] - size + 1, (count,), generator=generator).tolist()
    mirrored = (torch.rand(count, generator=generator) < 0.5).tolist()
    cut = [images[i, :, y : y + size, x : x + size] for i, y, x in zip(chosen.tolist(), tops, lefts, strict=True)]
    return torch.stack([crop.flip(-1) if flip else crop for crop, flip in zip(cut, mirrored, strict=True)])


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
    """Loads a stored state if there is one; returns the step to go on with and the mean loss so far."""
    if not file.is_file():
        return 0, math.nan
    state = torch.load(file, weights_only=True)
    for part, values in zip(parts, state['parts'], strict=True):
        part.load_state_dict(values)
    optimizer.load_state_dict(state['optimizer'])
    schedule.load_state_dict(state['schedule'])
    return state['step'], state['mean']
