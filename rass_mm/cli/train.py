"""`rass-mm train` and `tools/train.py`: trains a model from a config."""

import argparse

from rass_mm import apis
from rass_mm.cli.runner import add_runner, runner_config


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm train`."""
    add_runner(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const=True,
        default=False,
        help='resume from the given checkpoint, or from the last one in the work folder',
    )
    parser.add_argument(
        '--amp', action='store_true', help='use bfloat16 mixed precision if an accelerator is available'
    )
    parser.set_defaults(run=run, interrupted='Add --resume to continue from the last checkpoint.')
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Trains a model and returns 0."""
    apis.train(runner_config(arguments, arguments.amp), arguments.resume)
    return 0
