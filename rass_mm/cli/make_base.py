"""`rass-mm make-base`: trains a small Stable Diffusion base."""

import argparse
import sys
from pathlib import Path

from rass_mm.cli.options import add_overrides, count, given, integer, number, seed
from rass_mm.config import load_config
from rass_mm.demo.base.images import ConfiguredImages
from rass_mm.demo.base.recipe import BaseRecipe, Start
from rass_mm.demo.base.training import make_base
from rass_mm.diffusion.base import read_base
from rass_mm.errors import ConfigError

RECIPE_OPTIONS = (
    *('scenes', 'vae_steps', 'vae_batch', 'vae_crop', 'vae_rate'),
    *('unet_steps', 'unet_batch', 'unet_crop', 'unet_rate', 'snr_gamma', 'seed'),
)
KINDS = {
    **dict.fromkeys(('vae_steps', 'unet_steps'), integer(0, 10**7)),
    **dict.fromkeys(('vae_batch', 'unet_batch', 'vae_crop', 'unet_crop'), integer(1, 2**12)),
    **dict.fromkeys(('vae_rate', 'unet_rate'), number(0, 1, above=True)),
    'scenes': count,
    'snr_gamma': number(0, 10**6, above=True),
    'seed': seed,
}
BASE_HELP = {
    'scenes': 'number of drawn scenes',
    'vae_steps': 'training steps of the autoencoder',
    'vae_batch': 'crops per training step of the autoencoder',
    'vae_crop': 'side of a crop for the autoencoder, in pixels',
    'vae_rate': 'learning rate of the autoencoder',
    'unet_steps': 'training steps of the UNet',
    'unet_batch': 'crops per training step of the UNet',
    'unet_crop': 'side of a crop for the UNet, in latent pixels',
    'unet_rate': 'learning rate of the UNet',
    'snr_gamma': 'gamma of the Min-SNR loss weights; without it, all timesteps have equal weights',
    'seed': 'seed of weights, crops and noise',
}


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm make-base`."""
    defaults = BaseRecipe()
    parser.add_argument('out', type=Path, help='output folder for the base')
    parser.add_argument('--data', help='segmentation config that provides the training images (default: drawn scenes)')
    add_overrides(parser, 'overrides of the --data config as key=value, with dots in nested keys')
    parser.add_argument('--start', type=Path, help='small base to start from (default: random weights)')
    parser.add_argument(
        '--fresh-unet',
        action='store_true',
        help='use only the autoencoder of --start; the UNet and the text encoder start from random weights',
    )
    for name in RECIPE_OPTIONS:
        words = f'{BASE_HELP[name]} (default: {getattr(defaults, name)})'
        parser.add_argument(f'--{name.replace("_", "-")}', type=KINDS[name], help=words)
    parser.set_defaults(run=run, interrupted='Run the same command again to continue.')
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Trains and writes a base; prints its losses and returns 0.

    Raises:
        ConfigError: --fresh-unet is given without --start.
    """
    if arguments.fresh_unet and not arguments.start:
        raise ConfigError('--fresh-unet requires a base to start from, but --start is not given. Add --start FOLDER.')
    start = Start(read_base(arguments.start), arguments.fresh_unet) if arguments.start else None
    source = None
    if arguments.data:
        source = ConfiguredImages(load_config(arguments.data, arguments.cfg_options).train_dataloader.dataset)
    losses = make_base(arguments.out, BaseRecipe(**given(arguments, RECIPE_OPTIONS)), source, start)
    sys.stdout.write(f'{arguments.out}: ' + ', '.join(f'{name} {value}' for name, value in losses.items()) + '\n')
    return 0
