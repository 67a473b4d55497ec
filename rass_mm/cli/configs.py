"""`rass-mm configs`: lists the folder and the names of the shipped configs."""

import argparse
import sys

from rass_mm.config import config_names, config_path


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Sets up `rass-mm configs`, which has no arguments."""
    parser.set_defaults(run=run)
    return parser


def run(_arguments: argparse.Namespace) -> int:
    """Prints the folder and the names of the configs; returns 0."""
    sys.stdout.write('\n'.join([f'{config_path()}:', *(f'  {name}' for name in config_names())]) + '\n')
    return 0
