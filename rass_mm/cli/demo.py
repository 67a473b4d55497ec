"""`rass-mm demo`: the method end to end on drawn scenes."""

import argparse
from pathlib import Path

from rass_mm.demo.run import run_demo
from rass_mm.demo.settings import DemoSettings


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm demo`."""
    parser.add_argument('--out', type=Path, default=Path('demo_out'), help='folder of the demo (default: demo_out)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the trainings (default: 0)')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo; returns 0."""
    run_demo(arguments.out, DemoSettings(seed=arguments.seed))
    return 0
