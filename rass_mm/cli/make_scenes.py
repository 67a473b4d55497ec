"""`rass-mm make-scenes`: the embedded data set of labelled scenes."""

import argparse
import os
import sys
from pathlib import Path

from rass_mm.demo.scenes.generator import write_scenes


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm make-scenes`."""
    parser.add_argument('out', type=Path, help='folder of the data set')
    parser.add_argument('--train', type=int, default=400, help='training scenes (default: 400)')
    parser.add_argument('--val', type=int, default=100, help='validation scenes (default: 100)')
    parser.add_argument('--size', type=int, default=128, help='side in pixels (default: 128)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the drawing (default: 0)')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='processes (default: all cores)')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Draws the scenes and prints one line; returns 0."""
    counts = {'train': arguments.train, 'val': arguments.val}
    write_scenes(arguments.out, counts, arguments.seed, (arguments.size, arguments.size), arguments.workers)
    sys.stdout.write(f'{arguments.out}: {arguments.train} training and {arguments.val} validation scenes\n')
    return 0
