"""Command line of the low-quality data set builder."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rass_mm.degradation.builder import build_lq_dataset
from rass_mm.degradation.jpeg import CHROMA
from rass_mm.degradation.recipe import OSEDIFF, VERSIONS, override
from rass_mm.errors import RassError


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The builder's arguments, shared by `tools/make_lq_dataset.py` and `rass-mm make-lq`."""
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
    parser.add_argument(
        '--recipe-version',
        type=int,
        choices=VERSIONS,
        default=OSEDIFF.version,
        help=f'1 continues copies made before there were versions (default: {OSEDIFF.version})',
    )
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
        return 130
    Console().print(
        f'{summary.images} images in {arguments.out} ({summary.made} made now, {summary.seconds:.1f} s); '
        f'manifest: {summary.manifest}',
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tools/make_lq_dataset.py`; returns its exit status.

    Args:
        argv: arguments without the program's name; those of the process if None.
    """
    description = 'Make a fixed low-quality copy of an image folder; run the same command again to resume.'
    arguments = add_arguments(argparse.ArgumentParser(description=description)).parse_args(argv)
    try:
        return arguments.run(arguments)
    except RassError as error:
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
