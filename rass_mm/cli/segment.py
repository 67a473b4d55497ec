"""`rass-mm segment`: segments image files of any size."""

import argparse
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from rass_mm.cli.exported import add_backend, exported_model
from rass_mm.cli.options import (
    DEFAULT_DTYPE,
    add_device,
    add_max_pixels,
    add_overrides,
    finish_job,
    integer,
    positive,
    side,
)
from rass_mm.cli.preparation import add_preparation
from rass_mm.cli.ray_pool import add_ray, check_same, chosen_pool, picklable
from rass_mm.cli.shards import add_pack, add_shards, chosen_shard, ending_with_the_others
from rass_mm.errors import ConfigError
from rass_mm.export.metadata import SEGMENTOR
from rass_mm.files.optional import import_optional
from rass_mm.inference.exported import ExportedPhotoSegmentor
from rass_mm.inference.modes import MODES, SegmentOptions
from rass_mm.inference.photo_segmentor import PhotoSegmentor
from rass_mm.inference.segment import segment_files
from rass_mm.inference.steps import is_plain
from rass_mm_cli.extras import SEGMENTATION

Job = tuple[Callable[[], PhotoSegmentor], dict[str, Any], Callable[[], AbstractContextManager]]
"""Function that loads the segmentor, values that identify it in a manifest, and a context manager that makes errors of
the run name the part of the config at fault.
"""
UNUSED = {
    **{'config': '--config', 'base': '--base', 'cfg_options': '--cfg-options', 'window': '--window'},
    **{'device': '--device', 'dtype': '--dtype', 'compile': '--compile', 'deterministic': '--deterministic'},
}
"""Options that an exported segmentor does not have."""


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm segment`."""
    parser.add_argument(
        'sources',
        metavar='IN',
        nargs='+',
        help="images, folders (searched recursively) or patterns in quotes, e.g. 'photos/*.jpg'; also .tar and "
        '.parquet files with images',
    )
    parser.add_argument(
        'out',
        metavar='OUT',
        type=Path,
        help='output folder for labels/, overlays/, shares.csv and shares.json. Outputs have the size of the image '
        'after its EXIF orientation is applied',
    )
    parser.add_argument('--checkpoint', type=Path, required=True, help='checkpoint or pack of a trained segmentor')
    add_backend(parser, '--checkpoint')
    parser.add_argument(
        '--config',
        help='config file, or name of a shipped config (default: the config in the checkpoint; its code is not run)',
    )
    parser.add_argument(
        '--base', type=Path, help='Stable Diffusion folder (default: the one in the config or the pack)'
    )
    parser.add_argument(
        '--confidence',
        action='store_true',
        help='also write the probability of each predicted label to confidence/, as 8-bit images',
    )
    parser.add_argument(
        '--restored', action='store_true', help='also write the restored images to restored/ (RestoreThenSegment only)'
    )
    parser.add_argument(
        '--mode',
        choices=MODES,
        default='auto',
        help='auto: as in the config, but large images always in windows; windows: windows for every image that is '
        'larger than one window; whole: no windows, which is slow and needs much memory for large images '
        '(default: auto)',
    )
    parser.add_argument('--window', type=side, help='side of a window in pixels (default: as in the config)')
    parser.add_argument(
        '--overlap',
        type=integer(0, 2**16),
        help='overlap of neighbouring windows in pixels (default: as in the config, else a third of the window)',
    )
    parser.add_argument(
        '--batch-size',
        type=positive,
        metavar='N',
        help='windows of an image per batch (default: as in the config, else 1)',
    )
    add_max_pixels(parser)
    add_device(parser)
    add_preparation(parser, f'for RASS models with a full-size base {DEFAULT_DTYPE}; otherwise float32')
    add_overrides(parser)
    add_shards(parser)
    add_pack(parser)
    add_ray(parser, 'one per GPU of the cluster, or per CPU core if it has none')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Segments the images and prints a summary; returns the exit status (130 after Ctrl-C).

    Raises:
        RassError: an error that the user can fix; finished images are kept.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    names = ('mode', 'window', 'overlap', 'batch_size', 'confidence')
    options = SegmentOptions(**{name: getattr(arguments, name) for name in names})
    shard = chosen_shard(arguments)
    pool = chosen_pool(arguments, cards=not arguments.backend)
    load, identity, explained = _job(arguments, options)
    if pool:
        load = partial(_loaded, picklable(arguments), options, identity)
    places = (arguments.sources, arguments.out)
    rest = (arguments.restored, arguments.max_pixels, shard, pool, arguments.pack)
    with explained(), ending_with_the_others(arguments):
        return finish_job(
            lambda: segment_files(*places, load, options, identity, *rest),
            lambda job: f'{arguments.out}: {job.made} of {job.images} images segmented now ({job.seconds:.1f} s)',
        )


def _job(arguments: argparse.Namespace, options: SegmentOptions) -> Job:
    return (_exported_job if arguments.backend else _trained_job)(arguments, options)


def _loaded(arguments: argparse.Namespace, options: SegmentOptions, identity: Mapping[str, Any]) -> PhotoSegmentor:
    """Loads the segmentor in a process of a pool."""
    load, found, explained = _job(arguments, options)
    check_same(identity, found)
    with explained():
        return load()


def _trained_job(arguments: argparse.Namespace, options: SegmentOptions) -> Job:
    return _needing_mmseg('rass-mm segment without --backend').trained_job(arguments, options)


def _needing_mmseg(purpose: str) -> ModuleType:
    return import_optional('rass_mm.cli.trained_segmentor', purpose, SEGMENTATION)


def _exported_job(arguments: argparse.Namespace, options: SegmentOptions) -> Job:
    exported = exported_model(arguments, arguments.checkpoint, SEGMENTOR, UNUSED)
    if options.mode == 'whole':
        raise ConfigError('An exported segmentor has windows only. Remove --mode whole.')
    if not is_plain(exported.metadata['classes']['pipeline']):
        return _needing_mmseg(f'The test pipeline of {exported.folder}').piped_job(exported, options)
    return lambda: ExportedPhotoSegmentor(exported, options), exported.identity(), nullcontext
