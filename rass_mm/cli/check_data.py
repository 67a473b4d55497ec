"""`rass-mm check-data`: checks all images and labels in the data sets of a config."""

import argparse
import json
import logging
import os
from pathlib import Path

from rich.console import Console

from rass_mm.cli.options import INTERRUPTED, LARGEST, add_config, add_overrides, integer
from rass_mm.config import load_config
from rass_mm.config.building import named_parts, reading_parts
from rass_mm.config.settings import check_settings
from rass_mm.datasets.check.run import SPLITS, check_config
from rass_mm.datasets.check.tables import print_report
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.atomic import check_writable, write_text
from rass_mm.segmentation.entry_points import settle

RECORDED = {'config', 'limit', 'problems', 'data'}
"""Top-level keys of the file that --json writes."""


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm check-data`."""
    add_config(parser)
    add_overrides(parser)
    parser.add_argument('--splits', nargs='+', choices=SPLITS, help='splits to check (default: all in the config)')
    parser.add_argument(
        '--limit',
        type=integer(-LARGEST, LARGEST),
        help='read only the first LIMIT images of each split; missing files are always reported for all images',
    )
    parser.add_argument(
        '--workers',
        type=integer(0, 256),
        default=os.cpu_count() or 1,
        help='number of processes for large data sets (default: all cores)',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all results to this file')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Checks the data sets and prints the results.

    Returns:
        The exit status: 0 if there are no problems, 1 if there are problems, 130 after Ctrl-C.

    Raises:
        ConfigError: the config lacks a requested split, or an option is out of range.
        DataError: --json names an existing file that this command did not write.
        OSError: --json cannot be written.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f'--limit is {arguments.limit}, but it must be 1 or more.')
    if arguments.json:
        _check_target(arguments.json)
    config = load_config(arguments.config, arguments.cfg_options)
    check_settings(config, 'data')
    console, reports = Console(), []
    try:
        with named_parts(config, *(f'{split}_dataloader' for split in SPLITS)):
            with reading_parts():
                settle(config)
            for report in check_config(config, arguments.splits, arguments.limit, arguments.workers):
                print_report(report, console)
                reports.append(report)
    except KeyboardInterrupt:
        Console(stderr=True).print('Interrupted. Use --limit and --splits for a shorter check.')
        return INTERRUPTED
    problems = sum(report.problems for report in reports if not report.same_as)
    if arguments.json:
        record = {'config': str(arguments.config), 'limit': arguments.limit, 'problems': problems}
        record['data'] = [report.as_dict() for report in reports]
        write_text(arguments.json, json.dumps(record, indent=2) + '\n')
    verdict = f'{problems} problem{"s" if problems > 1 else ""}' if problems else 'No problems'
    sets = f'{len(reports)} data set{"s" if len(reports) > 1 else ""}'
    console.print(f'{verdict} in {sets}.', markup=False, highlight=False)
    return 1 if problems else 0


def _check_target(target: Path) -> None:
    """Checks that the file of --json can be written and, if it exists, that it contains results of this command."""
    check_writable(target)
    if not target.exists():
        return
    try:
        earlier = json.loads(target.read_bytes()) if target.is_file() else None  # reading a pipe would not end
    except (ValueError, RecursionError):
        earlier = None
    if not isinstance(earlier, dict) or not earlier.keys() >= RECORDED:
        raise DataError(f'--json: {target} exists and was not written by check-data. Choose another file.')
