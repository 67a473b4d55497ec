"""Command line of the low-quality data set builder."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..errors import RassError
from .builder import build_lq_dataset


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Make a fixed low-quality copy of an image folder; run the same command again to resume.'
    )
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Arguments without the program's name; those of the process if None.

    Returns:
        The exit code: 0, 1 after an error that the user can mend, or 130 after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        summary = build_lq_dataset(
            args.images, args.out, args.seed, args.workers, suffix='.png' if args.ext == 'png' else None
        )
    except (RassError, OSError) as error:  # the system names the folder that it refuses
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print('Interrupted; finished images are kept: run the same command again to go on.')
        return 130
    Console().print(
        f'{summary.images} images in {args.out} ({summary.made} made now, {summary.seconds:.1f} s); '
        f'manifest: {summary.manifest}',
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0
