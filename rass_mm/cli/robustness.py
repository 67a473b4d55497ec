"""`rass-mm robustness`: tests the mIoU of a segmentor at several severities of each degradation."""

import argparse
import logging
import sys
from pathlib import Path

from rass_mm.analysis.robustness.curve import check_comparable, read_curve
from rass_mm.analysis.robustness.run import claimed, tested, write_report
from rass_mm.cli.options import INTERRUPTED, LARGEST, add_overrides, add_recipe_version, integer, seed
from rass_mm.degradation.severity import KINDS
from rass_mm.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm robustness`."""
    parser.add_argument('config', nargs='?', help='segmentor config: a file, or the name of a shipped config')
    parser.add_argument('checkpoint', nargs='?', type=Path, help='checkpoint file')
    parser.add_argument('--out', type=Path, required=True, help='folder for the JSON file, the table and the plot')
    parser.add_argument(
        '--name', help='name of the model in the table, the plot and the file names (default: name of the config)'
    )
    parser.add_argument(
        '--kinds', nargs='+', choices=KINDS, default=list(KINDS), help='degradations to test (default: all)'
    )
    parser.add_argument(
        '--severities',
        nargs='+',
        type=float,
        default=[0.0, 0.25, 0.5, 0.75, 1.0],
        help='severities from 0 (mild) to 1 (hard) (default: 0 0.25 0.5 0.75 1)',
    )
    parser.add_argument('--limit', type=integer(-LARGEST, LARGEST), help='test only the first LIMIT images')
    parser.add_argument(
        '--seed',
        type=seed,
        default=0,
        help='seed of the random degradations; use the same seed for all models that you compare (default: 0)',
    )
    parser.add_argument('--calibration', action='store_true', help='measure the expected calibration error as well')
    add_recipe_version(parser, 'is for earlier tests that you continue or compare with')
    parser.add_argument(
        '--compare', nargs='+', type=Path, default=[], metavar='JSON', help='earlier results to show with this model'
    )
    parser.add_argument(
        '--plot',
        nargs='+',
        type=Path,
        metavar='JSON',
        help='run no test; only write the table and the plot of earlier results',
    )
    add_overrides(parser)
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Tests the points that have no result yet, then writes the table and the plot and prints their paths.

    A point is one degradation at one severity.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        RassError: an error that the user can fix; finished points are kept.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    name = arguments.name
    if name is not None and (Path(name).name != name or name == '..' or '\0' in name):
        raise ConfigError(f'--name {name!r} cannot be part of a file name. Remove the slashes, and use more than dots.')
    if arguments.plot:
        if arguments.config or arguments.compare:
            raise ConfigError('--plot runs no test. Pass only JSON files, without CONFIG, CHECKPOINT or --compare.')
        curves = [read_curve(path) for path in arguments.plot]
        check_comparable(curves)
        name = name or 'robustness'
        with claimed(arguments.out, name):
            return write_report(arguments.out, name, curves)
    if not (arguments.config and arguments.checkpoint):
        raise ConfigError('Pass CONFIG and CHECKPOINT to test, or --plot with the JSON files of earlier tests.')
    others = [read_curve(path) for path in arguments.compare]
    name = name or Path(arguments.config).stem
    with claimed(arguments.out, name):
        try:
            curve = tested(arguments, name, others)
        except KeyboardInterrupt:
            sys.stderr.write('\nInterrupted. Finished points are kept; run the same command again to resume.\n')
            return INTERRUPTED
        return write_report(arguments.out, name, [curve, *others])
