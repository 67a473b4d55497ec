"""`rass-mm robustness`: mIoU of a segmentor over the severity of each degradation."""

import argparse
import logging
import sys
from pathlib import Path

from rass_mm.analysis.robustness.curve import check_comparable, read_curve
from rass_mm.analysis.robustness.run import tested, write_report
from rass_mm.cli.options import INTERRUPTED, add_overrides, add_recipe_version
from rass_mm.degradation.severity import KINDS
from rass_mm.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm robustness`."""
    parser.add_argument('config', nargs='?', help='config of a segmentor: a file, or the name of a shipped one')
    parser.add_argument('checkpoint', nargs='?', type=Path, help='its checkpoint')
    parser.add_argument('--out', type=Path, required=True, help='folder for the JSON, the table and the plot')
    parser.add_argument('--name', help="the model's name in table and plot, and of the files (default: the config's)")
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=list(KINDS), help='degradations (default: all)')
    parser.add_argument(
        '--severities',
        nargs='+',
        type=float,
        default=[0.0, 0.25, 0.5, 0.75, 1.0],
        help='0 (mild) to 1 (default: by quarters)',
    )
    parser.add_argument('--limit', type=int, help='test the first so many images only')
    parser.add_argument('--seed', type=int, default=0, help='of the draws; the same for models to compare (default: 0)')
    add_recipe_version(parser, 'continues and compares earlier tests')
    parser.add_argument(
        '--compare', nargs='+', type=Path, default=[], metavar='JSON', help='earlier results to show beside this model'
    )
    parser.add_argument(
        '--plot', nargs='+', type=Path, metavar='JSON', help='test nothing: table and plot of earlier results'
    )
    add_overrides(parser)
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Tests what is missing, writes table and plot and prints where; returns the exit status (130 after Ctrl-C).

    Raises:
        RassError: something the user can mend; the points tested so far are kept.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    if arguments.name and Path(arguments.name).name != arguments.name:
        raise ConfigError(f'--name {arguments.name!r} is part of file names: leave out slashes.')
    if arguments.plot:
        if arguments.config or arguments.compare:
            raise ConfigError('--plot tests nothing: give it JSON files, and no CONFIG, CHECKPOINT or --compare.')
        curves = [read_curve(path) for path in arguments.plot]
        check_comparable(curves)
        return write_report(arguments.out, arguments.name or 'robustness', curves)
    if not (arguments.config and arguments.checkpoint):
        raise ConfigError('Give CONFIG and CHECKPOINT to test, or --plot with the JSON files of earlier tests.')
    others = [read_curve(path) for path in arguments.compare]
    name = arguments.name or Path(arguments.config).stem
    try:
        curve = tested(arguments, name, others)
    except KeyboardInterrupt:
        sys.stderr.write('\nInterrupted; finished points are kept: run the same command again to go on.\n')
        return INTERRUPTED
    return write_report(arguments.out, name, [curve, *others])
