"""`rass-mm demo`: the method end to end on drawn scenes."""

import argparse
from pathlib import Path

from rass_mm.demo.run import run_demo


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm demo`."""
    parser.add_argument('--out', type=Path, default=Path('demo_out'), help='folder of the demo (default: demo_out)')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo; returns 0."""
    run_demo(arguments.out)
    return 0
