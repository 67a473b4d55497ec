"""`rass-mm make-lq` and `tools/make_lq_dataset.py`: a fixed degraded copy of an image folder."""

import argparse
import logging
import os
from pathlib import Path

from rich.console import Console

from rass_mm.cli.options import INTERRUPTED, add_recipe_version
from rass_mm.degradation.builder import build_lq_dataset
from rass_mm.degradation.jpeg import CHROMA
from rass_mm.degradation.recipe import OSEDIFF, override


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm make-lq`."""
    parser.add_argument('images', type=Path, help='folder of clean images, searched with its subfolders')
    parser.add_argument('out', type=Path, help='folder for the degraded images and manifest.jsonl')
    parser.add_argument('--seed', type=int, default=0, help='seed of the whole copy (default: 0)')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='processes (default: all cores)')
    parser.add_argument(
        '--ext',
        choices=('png', 'keep'),
        default='png',
        help="file type of the copies: lossless PNG (default), or each image's own",
    )
    add_recipe_version(parser, 'continues copies made before there were versions')
    parser.add_argument(
        '--jpeg-chroma',
        choices=CHROMA,
        default=OSEDIFF.jpeg_chroma,
        help='enlarge JPEG chroma as libjpeg does (smooth, default) or as the released pipeline does (repeat)',
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Makes the copy and prints one line about it; returns the exit status (130 after Ctrl-C).

    Raises:
        RassError: something the user can mend; the images made so far are kept.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    suffix = '.png' if arguments.ext == 'png' else None
    recipe = override(OSEDIFF, {'version': arguments.recipe_version, 'jpeg_chroma': arguments.jpeg_chroma})
    places = (arguments.images, arguments.out)
    try:
        summary = build_lq_dataset(*places, arguments.seed, arguments.workers, recipe, suffix)
    except KeyboardInterrupt:
        Console(stderr=True).print('Interrupted; finished images are kept: run the same command again to go on.')
        return INTERRUPTED
    Console().print(
        f'{summary.images} images in {arguments.out} ({summary.made} made now, {summary.seconds:.1f} s); '
        f'manifest: {summary.manifest}',
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0
