"""Command line of `python -m experiments`."""

import argparse
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.logging import RichHandler

from experiments.costs import measure_costs
from experiments.judge_base import judge_bases
from experiments.migrate_records import migrate
from experiments.pages import write_pages
from experiments.plan import staged_runs
from experiments.prepare import prepare
from experiments.record import is_recorded
from experiments.report import write_report
from experiments.run import plan_runs, run_all
from experiments.systems import SEEDS, SETTINGS
from rass_mm.cli.guard import guarded
from rass_mm.errors import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    logging.basicConfig(level=logging.INFO, format='%(message)s', handlers=[RichHandler(show_path=False)])
    parser = argparse.ArgumentParser('python -m experiments', description='Does the recipe hold?')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for add in (_add_prepare, _add_costs, _add_run, _add_judge, _add_pages, _add_report, _add_migrate):
        add(commands)
    return guarded(parser.parse_args(argv))


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('settings', nargs='*', help=f'data sets: {", ".join(SETTINGS)} (default: all)')


def _chosen(arguments: argparse.Namespace) -> list[str]:
    for name in arguments.settings:
        if name not in SETTINGS:
            raise ConfigError(f'{name!r} is not a setting. Choose from: {", ".join(SETTINGS)}.')
    return arguments.settings or list(SETTINGS)


def _for_each(arguments: argparse.Namespace, do: Callable[[str], None]) -> int:
    for setting in _chosen(arguments):
        do(setting)
    return 0


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('prepare', help='make the data and the bases')
    _settings(parser)
    parser.add_argument('--camvid', type=Path, default=Path('data/camvid'), help='folder of the full-size CamVid')
    parser.set_defaults(run=lambda arguments: _for_each(arguments, partial(prepare, camvid=arguments.camvid)))


def _add_costs(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('costs', help='measure trained parameters and TFLOP of a step on the prepared data')
    parser.set_defaults(run=_costs)


def _costs(_arguments: argparse.Namespace) -> int:
    measure_costs()
    return 0


def _add_run(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('run', help='train and test systems x seeds that have no record yet')
    _settings(parser)
    parser.add_argument('--systems', nargs='+', help='names from systems.py (default: all)')
    parser.add_argument('--seeds', nargs='+', type=int, default=list(SEEDS))
    parser.add_argument('--workers', type=int, default=2, help='number of parallel runs with one thread each')
    parser.add_argument('--plan', action='store_true', help='all runs of plan.py, the main questions first')
    parser.add_argument('--again', action='store_true', help='repeat recorded runs of --systems and compare the scores')
    parser.add_argument('--list', action='store_true', help='only list which runs are recorded')
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.plan and (arguments.settings or arguments.systems):
        raise ConfigError('--plan selects the data sets and systems. Remove it, or remove their names.')
    staged = arguments.plan
    runs = staged_runs(arguments.seeds) if staged else plan_runs(_chosen(arguments), arguments.seeds, arguments.systems)
    if arguments.list:
        for run in runs:
            logging.info('%-9s %s', 'recorded' if is_recorded(run) else 'to do', run.label)
        return 0
    if arguments.again and not arguments.systems:
        raise ConfigError('--again requires --systems. Pass the names of the systems to repeat.')
    run_all(runs, arguments.workers, arguments.systems if arguments.again else ())
    return 0


def _add_judge(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('judge-base', help='measure noise loss and attention of the bases and draw samples')
    _settings(parser)
    parser.set_defaults(run=lambda arguments: _for_each(arguments, judge_bases))


def _add_pages(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('pages', help='write pictures of the images with the best, median and worst gain')
    _settings(parser)
    parser.set_defaults(run=lambda arguments: _for_each(arguments, write_pages))


def _add_report(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('report', help="write tables, plots and the README's lines from the records")
    parser.set_defaults(run=_report)


def _report(_arguments: argparse.Namespace) -> int:
    write_report()
    return 0


def _add_migrate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('migrate-records', help='update records to renamed configs with unchanged values')
    parser.add_argument('old', type=Path, help='a checkout in which the records match their configs')
    parser.add_argument('--ignore', nargs='+', default=[], metavar='KEY', help='dotted keys that may differ')
    parser.set_defaults(run=_migrate)


def _migrate(arguments: argparse.Namespace) -> int:
    migrate(arguments.old, arguments.ignore)
    return 0
