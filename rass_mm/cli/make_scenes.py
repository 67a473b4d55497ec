"""`rass-mm make-scenes`: draws the built-in data set of labelled scenes."""

import argparse
import os
import sys
from pathlib import Path

from rass_mm.cli.options import integer, seed, side, workers
from rass_mm.demo.scenes.generator import write_scenes


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm make-scenes`."""
    parser.add_argument('out', type=Path, help='output folder for the data set')
    parser.add_argument('--train', type=integer(0, 10**6), default=400, help='number of training scenes (default: 400)')
    parser.add_argument('--val', type=integer(0, 10**6), default=100, help='number of validation scenes (default: 100)')
    parser.add_argument('--size', type=side, default=128, help='side of a scene in pixels (default: 128)')
    parser.add_argument('--seed', type=seed, default=0, help='random seed (default: 0)')
    parser.add_argument(
        '--workers', type=workers, default=os.cpu_count() or 1, help='number of processes (default: all cores)'
    )
    parser.set_defaults(run=run, interrupted='Run the same command again to continue.')
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Draws the scenes and prints a summary; returns 0."""
    counts = {'train': arguments.train, 'val': arguments.val}
    write_scenes(arguments.out, counts, arguments.seed, (arguments.size, arguments.size), arguments.workers)
    sys.stdout.write(f'{arguments.out}: {arguments.train} training and {arguments.val} validation scenes\n')
    return 0
