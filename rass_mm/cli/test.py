"""`rass-mm test` and `tools/test.py`: tests a checkpoint, or a model without trainable parameters."""

import argparse
from typing import Any

import torch
from mmengine.device import get_device

from rass_mm import apis
from rass_mm.cli.options import number
from rass_mm.cli.preparation import add_preparation, preparation
from rass_mm.cli.runner import add_runner, runner_config
from rass_mm.errors import ConfigError
from rass_mm.inference.own_preparation import prepares_parts


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm test`."""
    add_runner(parser)
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint file; optional for models without trainable parameters'
    )
    parser.add_argument('--out', help='folder for predicted label maps or restored images')
    parser.add_argument('--show', action='store_true', help='show each prediction in a window')
    parser.add_argument(
        '--wait-time', type=number(0, 3600), default=2.0, help='seconds for which each window stays open (default: 2)'
    )
    parser.add_argument('--show-dir', help='folder for visualizations of the predictions')
    add_preparation(parser, 'float32 with the network as trained')
    parser.add_argument('--tta', action='store_true', help='use test-time augmentation')
    parser.set_defaults(run=run, program=parser.prog)
    _take_late_checkpoint(parser)
    return parser


def _take_late_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Allows options between CONFIG and the optional CHECKPOINT, which argparse rejects before Python 3.13."""
    known = parser.parse_known_args

    def parse(*given: Any) -> tuple[argparse.Namespace, list[str]]:
        arguments, rest = known(*given)
        if rest and arguments.checkpoint is None and not rest[0].startswith('-'):
            arguments.checkpoint = rest.pop(0)
        return arguments, rest

    parser.parse_known_args = parse


def run(arguments: argparse.Namespace) -> int:
    """Tests a model and writes its metrics; returns 0.

    Raises:
        RassError: an error that the user can fix, such as a missing checkpoint.
    """
    config = runner_config(arguments, purpose='test')
    if arguments.checkpoint is None and apis.needs_checkpoint(config):
        raise ConfigError(apis.missing_checkpoint(config, f'{arguments.program} CONFIG CHECKPOINT'))
    how = preparation(arguments, torch.device(get_device()), own=prepares_parts(config))
    pictures = {'show_dir': arguments.show_dir, 'show': arguments.show, 'wait_time': arguments.wait_time}
    apis.test(config, arguments.checkpoint, arguments.out, tta=arguments.tta, how=how, **pictures)
    return 0
