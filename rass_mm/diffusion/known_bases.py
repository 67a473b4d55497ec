"""Configs of the Stable Diffusion releases and of two small bases, and functions that write base folders from them.

The values for Stable Diffusion are those of the published config files. The configs are used to create small bases, and
bases with random weights for tests and measurements. All other code reads the configs in the base folder.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from rass_mm.diffusion.tokenizer import write_tokenizer
from rass_mm.errors import BaseFolderError
from rass_mm.files.atomic import write_text
from rass_mm.files.locks import LOCK, held

Layout = dict[str, dict[str, Any]]

SD_VAE = {
    '_class_name': 'AutoencoderKL',
    'in_channels': 3,
    'out_channels': 3,
    'latent_channels': 4,
    'block_out_channels': [128, 256, 512, 512],
    'down_block_types': ['DownEncoderBlock2D'] * 4,
    'up_block_types': ['UpDecoderBlock2D'] * 4,
    'layers_per_block': 2,
    'norm_num_groups': 32,
    'act_fn': 'silu',
    'sample_size': 512,
    'scaling_factor': 0.18215,
}
SCHEDULER = {
    '_class_name': 'DDPMScheduler',
    'num_train_timesteps': 1000,
    'beta_schedule': 'scaled_linear',
    'beta_start': 0.00085,
    'beta_end': 0.012,
    'prediction_type': 'epsilon',
    'clip_sample': False,
    'steps_offset': 1,
}


def _unet(widths: list[int], context: int, heads: int | list[int], linear: bool, **others: Any) -> dict[str, Any]:
    crossed = len(widths) - 1
    return {
        '_class_name': 'UNet2DConditionModel',
        'in_channels': 4,
        'out_channels': 4,
        'sample_size': 64,
        'block_out_channels': widths,
        'down_block_types': ['CrossAttnDownBlock2D'] * crossed + ['DownBlock2D'],
        'up_block_types': ['UpBlock2D'] + ['CrossAttnUpBlock2D'] * crossed,
        'layers_per_block': 2,
        'norm_num_groups': 32,
        'cross_attention_dim': context,
        'attention_head_dim': heads,
        'use_linear_projection': linear,
        **others,
    }


def _text(width: int, layers: int, heads: int, act: str, vocabulary: int = 49408) -> dict[str, Any]:
    return {
        'architectures': ['CLIPTextModel'],
        'model_type': 'clip_text_model',
        'hidden_size': width,
        'intermediate_size': 4 * width,
        'num_hidden_layers': layers,
        'num_attention_heads': heads,
        'hidden_act': act,
        'max_position_embeddings': 77,
        'vocab_size': vocabulary,
        'projection_dim': 512,
    }


SD21_UNET = _unet([320, 640, 1280, 1280], 1024, [5, 10, 20, 20], linear=True)
LAYOUTS: dict[str, Layout] = {
    'sd21-base': {
        'unet': SD21_UNET,
        'vae': SD_VAE,
        'text_encoder': _text(1024, 23, 16, 'gelu'),
        'scheduler': SCHEDULER,
    },
    'sd-turbo': {'unet': SD21_UNET, 'vae': SD_VAE, 'text_encoder': _text(1024, 23, 16, 'gelu'), 'scheduler': SCHEDULER},
    'sd15': {
        'unet': _unet([320, 640, 1280, 1280], 768, 8, linear=False),
        'vae': SD_VAE,
        'text_encoder': _text(768, 12, 12, 'quick_gelu'),
        'scheduler': SCHEDULER,
    },
    'sd-tiny': {
        'unet': _unet([32, 64, 96, 96], 64, 2, linear=True, layers_per_block=1, norm_num_groups=8),
        'vae': {**SD_VAE, 'block_out_channels': [16, 32, 64, 64], 'layers_per_block': 1, 'norm_num_groups': 4},
        'text_encoder': _text(64, 2, 4, 'gelu', vocabulary=0),
        'scheduler': SCHEDULER,
    },
    'scenes-tiny': {
        'unet': _unet(
            [24, 48, 96, 96],
            64,
            2,
            linear=True,
            layers_per_block=1,
            norm_num_groups=8,
            sample_size=32,
            in_channels=8,
            out_channels=8,
        ),
        'vae': {
            **SD_VAE,
            'block_out_channels': [16, 32, 64],
            'down_block_types': ['DownEncoderBlock2D'] * 3,
            'up_block_types': ['UpDecoderBlock2D'] * 3,
            'latent_channels': 8,
            'layers_per_block': 1,
            'norm_num_groups': 4,
            'sample_size': 128,
        },
        'text_encoder': _text(64, 2, 4, 'gelu', vocabulary=0),
        'scheduler': SCHEDULER,
    },
}
"""Name of a known base -> its configs.

`sd-tiny` has the levels and strides of Stable Diffusion with small widths, so that configs for Stable Diffusion run in
seconds. `scenes-tiny` has an autoencoder with a stride of 4, because with a stride of 8, a 128-pixel scene would be
only 16 latent pixels wide. It has 8 latent channels, because the best linear code of 4x4 patches has a PSNR that
is 3.8 dB higher with 8 numbers than with 4 (measured on the training images of CamVid).
"""


def write_configs(folder: Path, layout: Layout, name: str) -> Layout:
    """Writes the tokenizer and all config files of a base.

    Args:
        folder: the base folder.
        layout: a value of `LAYOUTS`.
        name: name of the base, which is recorded in `model_index.json`.

    Returns:
        A copy of the layout in which the text encoder has the vocabulary size and the token ids of the tokenizer.
    """
    vocabulary = write_tokenizer(folder / 'tokenizer')
    layout = {**layout, 'text_encoder': {**layout['text_encoder'], **vocabulary}}
    for part, config in layout.items():
        file = 'scheduler_config.json' if part == 'scheduler' else 'config.json'
        write_text(folder / part / file, json.dumps(config, indent=2))
    write_text(
        folder / 'model_index.json',
        json.dumps({'_class_name': 'StableDiffusionPipeline', '_rass_mm_name': name}, indent=2),
    )
    return layout


def build_models(layout: Layout) -> dict[str, Any]:
    """Builds the `unet`, `vae` and `text_encoder` of a layout with random initial weights."""
    return {
        'unet': UNet2DConditionModel.from_config(layout['unet']),
        'vae': AutoencoderKL.from_config(layout['vae']),
        'text_encoder': CLIPTextModel(CLIPTextConfig(**layout['text_encoder'])),
    }


def write_random_base(
    folder: Path, name: str = 'sd21-base', seed: int = 0, half: bool = True, weights: bool = True
) -> None:
    """Writes a base folder whose weights have the shapes of a known base and random values.

    `model_index.json` and a README in the folder say that the weights are random.

    Args:
        folder: the folder to write. It must be empty or absent.
        name: a key of `LAYOUTS`.
        seed: seed of the random weights.
        half: whether to write float16 files (2.6 GB for sd21-base) instead of float32 files.
        weights: whether to write weights. The configs alone are sufficient for models on the device 'meta'.

    Raises:
        BaseFolderError: the folder is not empty, or the name is unknown.
        DataError: another command writes to the folder.
    """
    if name not in LAYOUTS:
        raise BaseFolderError(f'There is no base layout {name!r}. Choose one of {", ".join(LAYOUTS)}.')
    note = f'RANDOM WEIGHTS, seed {seed}: the shapes of {name}, for tests and measurements. Its outputs mean nothing.\n'
    with held(folder):
        if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
            raise BaseFolderError(
                f'{folder} is not empty. Random weights are written only to a new folder, so that they cannot '
                f'overwrite a base. Choose a new folder.'
            )
        layout = write_configs(folder, LAYOUTS[name], f'RANDOM-{name}')
        write_text(folder / 'README.md', note)
        if weights:
            torch.manual_seed(seed)
            for part, model in build_models(layout).items():
                (model.half() if half else model).save_pretrained(folder / part, safe_serialization=True)
