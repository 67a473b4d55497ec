"""Command line of the restoration of image files."""

import argparse
import hashlib
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from rass_mm.diffusion.base import find_base
from rass_mm.diffusion.color import COLOR_FIXES
from rass_mm.diffusion.latent_tiles import SCHEMES
from rass_mm.errors import ConfigError, RassError
from rass_mm.files.hashing import update_sampled
from rass_mm.inference.folder import Restoring, restore_files
from rass_mm.inference.plan import plan_files
from rass_mm.inference.restore import RestoreOptions
from rass_mm.inference.sheet import check_sheet, write_sheet

DTYPES = ('float32', 'float16', 'bfloat16')


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm restore`."""
    defaults = RestoreOptions()
    parser.add_argument(
        'source', metavar='IN', help="an image, a folder with its subfolders, or a pattern in quotes: 'photos/*.jpg'"
    )
    parser.add_argument('out', metavar='OUT', help='a folder; for one image also a file name')
    parser.add_argument('--adapter', type=Path, required=True, help='file of the trained restorer, scr_*.safetensors')
    parser.add_argument('--base', type=Path, required=True, help='Stable Diffusion folder that it was trained on')
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
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: cuda if there is one, else cpu)')
    parser.add_argument(
        '--dtype', choices=DTYPES, help='precision (default: bfloat16 on a cuda device that has it, else float32)'
    )
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
        from rass_mm.diffusion.restorer import load_restorer

        torch.manual_seed(arguments.seed)
        given = {'ends': arguments.autoencoder_ends, 'device': str(device), 'dtype': dtype}
        return load_restorer(**parts, **given, latent_tiles=options.scheme == 'osediff')

    if arguments.sheet:
        check_sheet(arguments.sheet)
    try:
        summary = restore_files(arguments.source, arguments.out, load, options, model)
    except KeyboardInterrupt:
        Console(stderr=True).print('Interrupted; finished images are kept: run the same command again to go on.')
        return 130
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


def chosen_device(name: str | None) -> torch.device:
    """The device of that name, or the best there is.

    Raises:
        ConfigError: there is no such device.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each kind of device has its own
        reason = str(error).splitlines()[0]
        raise ConfigError(f'Device {name!r} cannot be used ({reason}). Give --device cpu or another one.') from error
    return device


def default_dtype(device: torch.device) -> str:
    """bfloat16 where a cuda device has it: as fast as float16, without its narrow range."""
    return 'bfloat16' if device.type == 'cuda' and torch.cuda.is_bf16_supported() else 'float32'


def content_hash(path: Path | None) -> Any:
    """Identifies a weights file, or the configs and weights of a folder; None for no path.

    Names, sizes, and the first and last part of each file: enough to tell trained weights apart, and quick.

    Raises:
        ConfigError: there is no such file or folder.
    """
    if path is None:
        return None
    if not path.exists():
        raise ConfigError(f'{path} does not exist: name the file or folder that holds the weights.')
    files = [path] if path.is_file() else sorted(file for file in path.rglob('*') if _is_weights_or_config(file))
    digest = hashlib.sha256()
    for file in files:
        name = '' if path.is_file() else file.relative_to(path).as_posix()  # a renamed adapter is the same adapter
        digest.update(f'{name}:{file.stat().st_size}:'.encode())
        update_sampled(digest, file)
    return digest.hexdigest()[:16]


def _is_weights_or_config(path: Path) -> bool:
    return path.suffix in ('.safetensors', '.json') and path.is_file()
