"""`rass-mm random-base`: writes a Stable Diffusion folder with random weights."""

import argparse
import sys
from pathlib import Path

from rass_mm.cli.options import seed
from rass_mm.diffusion.known_bases import LAYOUTS, write_random_base


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm random-base`."""
    parser.add_argument('out', type=Path, help='output folder for the base')
    parser.add_argument(
        '--layout', choices=tuple(LAYOUTS), default='sd21-base', help='architecture of the base (default: sd21-base)'
    )
    parser.add_argument('--seed', type=seed, default=0, help='seed of the weights (default: 0)')
    parser.add_argument(
        '--configs-only',
        action='store_true',
        help='write only the configs, without weights; this is sufficient for models on the meta device',
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Writes the folder and prints a summary; returns 0."""
    write_random_base(arguments.out, arguments.layout, arguments.seed, weights=not arguments.configs_only)
    sys.stdout.write(f'{arguments.out}: {arguments.layout} with RANDOM weights\n')
    return 0
