"""`rass-mm report`: writes Markdown tables of recorded tests, benchmarks and robustness curves."""

import argparse
import sys
from pathlib import Path

from rass_mm.analysis.report.recorded_tests import report
from rass_mm.analysis.report.records import read_records
from rass_mm.files.atomic import write_text
from rass_mm.files.naming import refuse_inputs


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm report`."""
    parser.add_argument(
        'records',
        nargs='+',
        metavar='PATH',
        help='a metrics.json file, the JSON file of a benchmark or robustness test, or a folder to search for such '
        'files; NAME=PATH sets the name of the row',
    )
    parser.add_argument('--out', type=Path, help='Markdown file to write (default: print the report)')
    parser.add_argument('--title', default='Results', help='title of the report (default: Results)')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Writes or prints the report; returns 0.

    Raises:
        DataError: a record is unreadable, is given twice or has an unknown kind, or --out is one of the records.
    """
    if arguments.out:
        refuse_inputs([arguments.out], arguments.records, '--out')
    records = read_records(arguments.records)
    if arguments.out:
        refuse_inputs([arguments.out], [record.path for record in records], '--out')  # also those in folders
    text = report(records, arguments.title)
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        write_text(arguments.out, text)
        sys.stdout.write(f'{arguments.out}: {len(records)} records\n')
    return 0
