"""`rass-mm inspect`: shows what a file or folder of this package is."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from rass_mm.analysis.inspection.inspect import inspect
from rass_mm.analysis.inspection.table import facts_table


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm inspect`."""
    parser.add_argument(
        'path',
        metavar='FILE|FOLDER',
        type=Path,
        help='checkpoint, adapter, base, pack, exported model, manifest, or a record such as metrics.json',
    )
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prints the facts; returns 0.

    Raises:
        RassError: the path is not a file or folder of this package, or is damaged.
    """
    found = inspect(arguments.path)
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=1, default=str) + '\n')
    else:
        Console().print(facts_table(str(arguments.path), found))
    return 0
