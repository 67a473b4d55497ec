"""`rass-mm segment`: segments image files of any size."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.registry import init_default_scope

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
from rass_mm.cli.preparation import add_preparation, preparation, prepared_identity
from rass_mm.cli.shards import add_shards, card_of_process, chosen_shard, ending_with_the_others
from rass_mm.config import check_config_data
from rass_mm.config.building import named_parts
from rass_mm.devices import chosen_device
from rass_mm.errors import ConfigError
from rass_mm.export.exported_segmentor import ExportedSegmentor
from rass_mm.export.metadata import AGAIN, METADATA, SEGMENTOR
from rass_mm.inference.loading import read_segmentor
from rass_mm.inference.modes import MODES, SegmentOptions
from rass_mm.inference.own_preparation import prepares_parts
from rass_mm.inference.segment import segment_files
from rass_mm.inference.segmentor import Segmentor

Job = tuple[Callable[[], Segmentor], dict[str, Any], Any]
"""Function that loads the segmentor, values that identify it in a manifest, and its config."""
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
        help="images, folders (searched recursively) or patterns in quotes, e.g. 'photos/*.jpg'",
    )
    parser.add_argument(
        'out',
        metavar='OUT',
        type=Path,
        help='output folder for labels/, overlays/, shares.csv and shares.json. Outputs have the size of the image '
        'after its EXIF orientation is applied',
    )
    parser.add_argument('--checkpoint', type=Path, required=True, help='checkpoint of a trained segmentor')
    add_backend(parser, '--checkpoint')
    parser.add_argument(
        '--config',
        help='config file, or name of a shipped config (default: the config in the checkpoint; its code is not run)',
    )
    parser.add_argument('--base', type=Path, help='Stable Diffusion folder (default: the one in the config)')
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
    job = _exported_job if arguments.backend else _trained_job
    load, identity, config = job(arguments, options)
    places = (arguments.sources, arguments.out)
    rest = (arguments.restored, arguments.max_pixels, shard)
    with named_parts(config, 'model'), ending_with_the_others(arguments):
        return finish_job(
            lambda: segment_files(*places, load, options, identity, *rest),
            lambda job: f'{arguments.out}: {job.made} of {job.images} images segmented now ({job.seconds:.1f} s)',
        )


def _trained_job(arguments: argparse.Namespace, options: SegmentOptions) -> Job:
    device = chosen_device(card_of_process(arguments))
    source = read_segmentor(arguments.checkpoint, arguments.config, arguments.base, arguments.cfg_options)
    own = prepares_parts(source.config)
    how = preparation(arguments, device, source.default_preparation(device), own)
    identity = {**source.identity(), **prepared_identity(how, device, own)}
    return lambda: source.build(device, how, options), identity, source.config


def _exported_job(arguments: argparse.Namespace, options: SegmentOptions) -> Job:
    exported = exported_model(arguments, arguments.checkpoint, SEGMENTOR, UNUSED)
    if options.mode == 'whole':
        raise ConfigError('An exported segmentor has windows only. Remove --mode whole.')
    classes = exported.metadata['classes']
    config = {'pipeline': classes['pipeline']}
    init_default_scope('mmseg')
    check_config_data(config, str(exported.folder / METADATA), remedy=AGAIN)

    def load() -> Segmentor:
        palette = [tuple(color) for color in classes['palette']]
        return Segmentor(ExportedSegmentor(exported), classes['pipeline'], classes['names'], palette, options)

    return load, exported.identity(), config
