"""`rass-mm restore`: restores image files of any size."""

import argparse
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rass_mm.cli.exported import add_backend, exported_model
from rass_mm.cli.options import (
    DEFAULT_DTYPE,
    add_autoencoder,
    add_device,
    add_max_pixels,
    add_restorer,
    finish_job,
    given,
    integer,
    number,
    positive,
    seed,
    side,
)
from rass_mm.cli.preparation import add_preparation, preparation, prepared_identity
from rass_mm.cli.ray_pool import add_ray, check_same, chosen_pool, picklable
from rass_mm.cli.shards import add_pack, add_shards, card_of_process, chosen_shard, ending_with_the_others
from rass_mm.devices import chosen_device
from rass_mm.diffusion.base import find_base
from rass_mm.diffusion.color import COLOR_FIXES
from rass_mm.diffusion.latent_tiles import SCHEMES
from rass_mm.diffusion.pack_base import restorer_files
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.engine.ready import prepare
from rass_mm.errors import ConfigError, RassError
from rass_mm.export.exported_restorer import ExportedRestorer
from rass_mm.export.metadata import RESTORER
from rass_mm.files.hashing import content_hash
from rass_mm.inference.folder import Restoring, restore_planned
from rass_mm.inference.plan import Plan, plan_files
from rass_mm.inference.precision import default_preparation
from rass_mm.inference.restore import RestoreOptions
from rass_mm.inference.sheet import check_sheet, write_sheet

Job = tuple[Callable[[], Restoring], dict[str, Any], RestoreOptions]
"""Function that loads the restorer, values that identify it in a manifest, and options."""
UNUSED = {
    **{'base': '--base', 'autoencoder': '--autoencoder', 'window': '--window', 'device': '--device'},
    **{'dtype': '--dtype', 'compile': '--compile', 'deterministic': '--deterministic'},
}
"""Options that an exported restorer does not have."""


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm restore`."""
    defaults = RestoreOptions()
    parser.add_argument(
        'source',
        metavar='IN',
        help="image, folder (searched recursively), or pattern in quotes, e.g. 'photos/*.jpg'; also .tar and .parquet "
        'files with images',
    )
    parser.add_argument('out', metavar='OUT', help='output folder; for a single image, a folder or file name')
    add_restorer(parser)
    add_backend(parser, '--adapter')
    add_autoencoder(parser)
    parser.add_argument('--upscale', type=number(1, 1000), default=defaults.upscale, help='upscale factor (default: 1)')
    parser.add_argument(
        '--scheme',
        choices=SCHEMES,
        default=defaults.scheme,
        help='windows: blended windows of the image, with bounded memory; osediff: as in the OSEDiff script, with its '
        'image sizes, the whole image in the VAE and latent tiles in the UNet (default: windows)',
    )
    parser.add_argument(
        '--window',
        type=side,
        help=f'side of a window in pixels (default: {defaults.window}, or that of the exported model)',
    )
    parser.add_argument(
        '--overlap',
        type=integer(0, 2**16),
        help='overlap of neighbouring windows in pixels; a larger overlap hides seams better '
        f'(default: {defaults.overlap}, or that of the exported model)',
    )
    parser.add_argument('--batch', type=positive, default=defaults.batch, help='windows per batch (default: 1)')
    parser.add_argument(
        '--color-fix',
        choices=COLOR_FIXES,
        default=defaults.color_fix,
        help='method that matches the colours of the result to those of the input (default: none)',
    )
    add_max_pixels(parser)
    add_device(parser)
    add_preparation(parser, f'with a full-size base and the form residual {DEFAULT_DTYPE}; otherwise float32')
    parser.add_argument(
        '--sheet', type=Path, help='also write a contact sheet of inputs and outputs to this image file'
    )
    parser.add_argument(
        '--seed', type=seed, default=0, help='random seed; the restorer itself draws no random numbers (default: 0)'
    )
    add_shards(parser)
    add_pack(parser)
    add_ray(parser, 'one per GPU of the cluster, or per CPU core if it has none')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Restores the images and prints a summary; returns the exit status (130 after Ctrl-C).

    Raises:
        RassError: an error that the user can fix; finished images are kept.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    shard = chosen_shard(arguments)
    if shard and arguments.sheet:
        raise ConfigError(
            '--sheet shows all images, but this command restores a shard of them. Remove --sheet. After rass-mm jobs '
            'merge, the command without --shards draws the sheet.'
        )
    pool = chosen_pool(arguments, cards=not arguments.backend)
    load, model, options = _job(arguments)
    if pool:
        load = partial(_loaded, picklable(arguments), model)
    if arguments.sheet:
        check_sheet(arguments.sheet)  # before folders are created
    plan = plan_files(arguments.source, arguments.out, arguments.pack)
    if arguments.sheet:
        _refuse_containers(plan)
        check_sheet(arguments.sheet, plan.tasks)
    try:
        with ending_with_the_others(arguments):
            return finish_job(
                lambda: restore_planned(plan, load, options, model, arguments.max_pixels, shard, pool),
                lambda job: f'{arguments.out}: {job.made} of {job.images} images restored now ({job.seconds:.1f} s)',
            )
    finally:
        if arguments.sheet:
            # Written even if some images failed. Errors of the sheet are suppressed to show those of the images.
            with suppress(RassError):
                write_sheet(arguments.sheet, plan.tasks)


def _refuse_containers(plan: Plan) -> None:
    if plan.pack or any(task.member for task in plan.tasks):
        raise ConfigError('--sheet shows image files, but the images are in containers. Remove --sheet.')


def _options(arguments: argparse.Namespace, **changes: Any) -> RestoreOptions:
    names = ('upscale', 'scheme', 'window', 'overlap', 'batch', 'color_fix')
    return RestoreOptions(**{**given(arguments, names), **changes})


def _job(arguments: argparse.Namespace) -> Job:
    return (_exported_job if arguments.backend else _trained_job)(arguments)


def _loaded(arguments: argparse.Namespace, identity: Mapping[str, Any]) -> Restoring:
    """Loads the restorer in a process of a pool."""
    load, model, _ = _job(arguments)
    check_same(identity, model)
    return load()


def _trained_job(arguments: argparse.Namespace) -> Job:
    adapter, base = restorer_files(arguments.adapter, arguments.base)
    if base is None:
        raise ConfigError('The Stable Diffusion folder that the adapter was trained on is missing. Set --base.')
    options, device = _options(arguments), chosen_device(card_of_process(arguments))
    parts = {
        'adapter': adapter,
        'base': find_base(base),
        'autoencoder': arguments.autoencoder,
    }
    how = preparation(arguments, device, default_preparation(device, [parts['base']], [adapter]))
    model = {**{name: content_hash(path) for name, path in parts.items()}, **prepared_identity(how, device)}
    model |= {'ends': arguments.autoencoder_ends, 'seed': arguments.seed}

    def load() -> Restoring:
        torch.manual_seed(arguments.seed)
        settings = {'ends': arguments.autoencoder_ends, 'device': str(device)}
        network = load_restorer(**parts, **settings, latent_tiles=options.scheme == 'osediff')
        return prepare(network, how) if how else network

    return load, model, options


def _exported_job(arguments: argparse.Namespace) -> Job:
    exported = exported_model(arguments, arguments.adapter, RESTORER, UNUSED)
    if arguments.scheme != RestoreOptions.scheme:
        raise ConfigError(f'An exported restorer has windows only. Remove --scheme {arguments.scheme}.')
    if arguments.autoencoder_ends != 'decoder':
        raise ConfigError('The autoencoder is part of the exported restorer. Remove --autoencoder-ends.')
    window, stride = exported.window[0], exported.metadata['stride'][0]
    overlap = window - stride if arguments.overlap is None else arguments.overlap
    options = _options(arguments, window=window, overlap=overlap)
    return lambda: ExportedRestorer(exported), exported.identity(), options
