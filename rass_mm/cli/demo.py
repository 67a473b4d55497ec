"""`rass-mm demo`: runs an end-to-end demo of the method on drawn scenes."""

import argparse
from pathlib import Path

from rass_mm.cli.options import count, seed
from rass_mm.demo.run import run_demo
from rass_mm.demo.settings import DemoSettings


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm demo`."""
    parser.add_argument('--out', type=Path, default=Path('demo_out'), help='output folder (default: demo_out)')
    parser.add_argument('--seed', type=seed, default=0, help='random seed (default: 0)')
    parser.add_argument(
        '--longer-steps',
        type=count,
        default=DemoSettings.longer_steps,
        help=f'training steps of the second, longer ResNet run (default: {DemoSettings.longer_steps}, which take about '
        'as many CPU seconds as SCR and RASS together; 20000 steps take about as many as the base, SCR and RASS '
        'together, about an hour)',
    )
    parser.set_defaults(run=run, interrupted='Run the same command again to continue.')
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo; returns 0."""
    run_demo(arguments.out, DemoSettings(seed=arguments.seed, longer_steps=arguments.longer_steps))
    return 0
