"""`rass-mm restore`: image files of any size and number, restored."""

import argparse
import logging
from contextlib import suppress
from pathlib import Path

import torch
from rich.console import Console

from rass_mm.cli.options import INTERRUPTED, add_device, add_dtype, add_restorer
from rass_mm.devices import chosen_device, default_dtype
from rass_mm.diffusion.base import find_base
from rass_mm.diffusion.color import COLOR_FIXES
from rass_mm.diffusion.latent_tiles import SCHEMES
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.errors import RassError
from rass_mm.files.hashing import content_hash
from rass_mm.inference.folder import Restoring, restore_files
from rass_mm.inference.plan import plan_files
from rass_mm.inference.restore import RestoreOptions
from rass_mm.inference.sheet import check_sheet, write_sheet


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm restore`."""
    defaults = RestoreOptions()
    parser.add_argument(
        'source', metavar='IN', help="an image, a folder with its subfolders, or a pattern in quotes: 'photos/*.jpg'"
    )
    parser.add_argument('out', metavar='OUT', help='a folder; for one image also a file name')
    add_restorer(parser)
    parser.add_argument('--autoencoder', type=Path, help="folder of a tiny autoencoder in place of the VAE's decoder")
    parser.add_argument(
        '--autoencoder-ends', choices=('decoder', 'both'), default='decoder', help='which ends it takes the place of'
    )
    parser.add_argument('--upscale', type=float, default=defaults.upscale, help='enlargement (default: 1)')
    parser.add_argument(
        '--scheme',
        choices=SCHEMES,
        default=defaults.scheme,
        help="blended windows of bounded memory, or OSEDiff's own: sizes of its script, the whole image through the "
        'VAE, the UNet in latent tiles (default: windows)',
    )
    parser.add_argument(
        '--window', type=int, default=defaults.window, help=f'side of a window in pixels (default: {defaults.window})'
    )
    parser.add_argument(
        '--overlap',
        type=int,
        default=defaults.overlap,
        help=f'pixels shared by neighbouring windows; more hides more (default: {defaults.overlap})',
    )
    parser.add_argument('--batch', type=int, default=defaults.batch, help='windows at a time (default: 1)')
    parser.add_argument(
        '--color-fix', choices=COLOR_FIXES, default=defaults.color_fix, help="take the source's colours (default: none)"
    )
    add_device(parser)
    add_dtype(parser)
    parser.add_argument(
        '--sheet', type=Path, help='also writes a contact sheet, input beside restored, to this picture'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of every random draw; the restorer itself makes none (default: 0)'
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Restores the images and prints one line about it; returns the exit status (130 after Ctrl-C).

    Raises:
        RassError: something the user can mend; the images restored so far are kept.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    names = ('upscale', 'scheme', 'window', 'overlap', 'batch', 'color_fix')
    options = RestoreOptions(**{name: getattr(arguments, name) for name in names})
    device = chosen_device(arguments.device)
    dtype = arguments.dtype or default_dtype(device)
    parts = {
        'adapter': arguments.adapter,
        'base': find_base(arguments.base),
        'autoencoder': arguments.autoencoder,
    }
    model = {**{name: content_hash(path) for name, path in parts.items()}, 'dtype': dtype}
    model |= {'ends': arguments.autoencoder_ends, 'seed': arguments.seed}

    def load() -> Restoring:
        torch.manual_seed(arguments.seed)
        given = {'ends': arguments.autoencoder_ends, 'device': str(device), 'dtype': dtype}
        return load_restorer(**parts, **given, latent_tiles=options.scheme == 'osediff')

    if arguments.sheet:
        check_sheet(arguments.sheet)
    try:
        summary = restore_files(arguments.source, arguments.out, load, options, model)
    except KeyboardInterrupt:
        Console(stderr=True).print('Interrupted; finished images are kept: run the same command again to go on.')
        return INTERRUPTED
    finally:
        if arguments.sheet:
            # Of what there is, even if some images failed; their error is the one to show.
            with suppress(RassError):
                write_sheet(arguments.sheet, plan_files(arguments.source, arguments.out).tasks)
    Console().print(
        f'{arguments.out}: {summary.made} of {summary.images} images restored now ({summary.seconds:.1f} s)',
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0
