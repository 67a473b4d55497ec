"""`rass-mm report`: writes Markdown tables of recorded tests, benchmarks and robustness curves, and training curves."""

import argparse
import sys
from pathlib import Path

from rass_mm.analysis.curves.runs import read_runs
from rass_mm.analysis.curves.write import refuse_foreign, write_curves
from rass_mm.analysis.report.recorded_tests import report
from rass_mm.analysis.report.records import read_records
from rass_mm.errors import DataError
from rass_mm.files.atomic import write_text
from rass_mm.files.naming import refuse_inputs

CURVES = Path('curves.png')


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm report`."""
    parser.add_argument(
        'records',
        nargs='+',
        metavar='PATH',
        help='a metrics.json file, the JSON file of a benchmark or robustness test, or a folder to search for such '
        'files; with --curves, the work folder of a training; NAME=PATH sets the name of the row or line',
    )
    parser.add_argument(
        '--curves',
        action='store_true',
        help='draw the losses, learning rates and validation metrics of finished or running trainings',
    )
    parser.add_argument(
        '--out',
        type=Path,
        help=f'Markdown file to write (default: print the report); with --curves, PNG file to write, with a CSV and a '
        f'JSON file of the same name beside it (default: {CURVES})',
    )
    parser.add_argument('--title', default='Results', help='title of the report (default: Results)')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Writes or prints the report; returns 0.

    Raises:
        DataError: a record or a log is unreadable, is given twice or has an unknown kind, or --out is one of them or
            would replace a file of another kind.
    """
    if arguments.curves:
        return _curves(arguments)
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


def _curves(arguments: argparse.Namespace) -> int:
    """Writes the curves of trainings; returns 0."""
    picture = arguments.out or CURVES
    if picture.suffix.lower() != '.png':
        raise DataError(f'--out {picture} does not end with .png. With --curves, pass the name of a PNG file.')
    runs = read_runs(arguments.records)
    if not any(run.curves for run in runs):
        raise DataError(f'{", ".join(run.name for run in runs)}: nothing has been logged yet. Try again later.')
    targets = [picture.with_suffix(suffix) for suffix in (picture.suffix, '.csv', '.json')]
    refuse_inputs(targets, [str(file) for run in runs for file in run.files], '--out')
    refuse_foreign(picture)
    write_curves(picture, runs, arguments.title)
    for note in (note for run in runs for note in run.notes):
        sys.stderr.write(f'warning: {note}\n')
    for found in runs:
        last = max((iteration for curve in found.curves.values() for iteration in curve), default=0)
        sys.stdout.write(f'{found.name}: up to iteration {last}\n')
    sys.stdout.write(f'Written: {", ".join(map(str, targets))}\n')
    return 0
