"""`rass-mm segment`: segments image files of any size."""

import argparse
import logging
from pathlib import Path

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
from rass_mm.config.building import named_parts
from rass_mm.devices import chosen_device
from rass_mm.inference.loading import read_segmentor
from rass_mm.inference.modes import MODES, SegmentOptions
from rass_mm.inference.segment import segment_files
from rass_mm.inference.segmentor import Segmentor


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
    device = chosen_device(arguments.device)
    source = read_segmentor(arguments.checkpoint, arguments.config, arguments.base, arguments.cfg_options)
    how = preparation(arguments, device, source.default_preparation(device))

    def load() -> Segmentor:
        return source.build(device, how, options)

    identity = {**source.identity(), **prepared_identity(how, device)}
    places = (arguments.sources, arguments.out)
    with named_parts(source.config, 'model'):
        return finish_job(
            lambda: segment_files(*places, load, options, identity, arguments.restored, arguments.max_pixels),
            lambda job: f'{arguments.out}: {job.made} of {job.images} images segmented now ({job.seconds:.1f} s)',
        )
