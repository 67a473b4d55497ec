"""`rass-mm train` and `tools/train.py`: training of a config."""

import argparse

from rass_mm import apis
from rass_mm.cli.options import add_runner, runner_config


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm train`."""
    add_runner(parser)
    parser.add_argument(
        '--resume', nargs='?', const=True, default=False, help='resume from the last or the given checkpoint'
    )
    parser.add_argument('--amp', action='store_true', help='bfloat16 mixed precision where there is an accelerator')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Trains; returns 0."""
    apis.train(runner_config(arguments, arguments.amp), arguments.resume)
    return 0
