"""`rass-mm random-base`: a base folder with random weights."""

import argparse
import sys
from pathlib import Path

from rass_mm.diffusion.known_bases import LAYOUTS, write_random_base


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm random-base`."""
    parser.add_argument('out', type=Path, help='folder of the base')
    parser.add_argument('--layout', default='sd21-base', help=f'{", ".join(LAYOUTS)} (default: sd21-base)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the weights (default: 0)')
    parser.add_argument('--configs-only', action='store_true', help='no weights: enough for the meta device')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Writes the folder and prints one line; returns 0."""
    write_random_base(arguments.out, arguments.layout, arguments.seed, weights=not arguments.configs_only)
    sys.stdout.write(f'{arguments.out}: {arguments.layout} with RANDOM weights\n')
    return 0
