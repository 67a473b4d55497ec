"""Command line of the data check."""

import argparse
import dataclasses
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rass_mm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rass_mm.datasets.check.findings import DataReport

SPLITS = ('train', 'val', 'test')


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm check-data`."""
    from mmengine.config import DictAction

    parser.add_argument('config', help='a config file, or the name of a shipped one, e.g. rass/rass_scenes_tiny.py')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='overrides, key=value, nested keys with dots'
    )
    parser.add_argument('--splits', nargs='+', choices=SPLITS, help='which to check (default: all that the config has)')
    parser.add_argument(
        '--limit', type=int, help='read the first N images of a split only; missing files are found among all'
    )
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count() or 1, help='processes for large data sets (default: all cores)'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write everything found to this file')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Checks the data sets and prints what was found.

    Returns:
        0 if there is nothing to mend, 1 if there is, 130 after Ctrl-C.

    Raises:
        ConfigError: the config lacks a wanted split, or an option is out of range.
    """
    import rass_mm  # noqa: F401  (registers everything the configs name)
    from rass_mm.config import load_config
    from rass_mm.datasets.check.tables import print_report
    from rass_mm.files.atomic import write_text

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f'--limit is {arguments.limit}; it must be 1 or more.')
    config = load_config(arguments.config, arguments.cfg_options)
    console, reports = Console(), []
    try:
        for report in check_config(config, arguments.splits, arguments.limit, arguments.workers):
            print_report(report, console)
            reports.append(report)
    except KeyboardInterrupt:
        Console(stderr=True).print('Interrupted; --limit and --splits make a check shorter.')
        return 130
    problems = sum(report.problems for report in reports if not report.same_as)
    if arguments.json:
        record = {'config': str(arguments.config), 'limit': arguments.limit, 'problems': problems}
        record['data'] = [report.as_dict() for report in reports]
        write_text(arguments.json, json.dumps(record, indent=2) + '\n')
    verdict = f'{problems} problems' if problems else 'No problems'
    console.print(f'{verdict} in {len(reports)} data sets.', markup=False, highlight=False)
    return 1 if problems else 0


def check_config(
    config: dict[str, Any], splits: list[str] | None = None, limit: int | None = None, workers: int = 1
) -> 'Iterator[DataReport]':
    """Yields a report on the data set of each split; on each part of it where it is a wrapper.

    Args:
        config: a config with `{train,val,test}_dataloader`.
        splits: some of 'train', 'val', 'test'; None takes those the config has.
        limit: reads the first so many images of a data set; None reads all.
        workers: number of processes.

    Raises:
        ConfigError: the config has no data set for a wanted split, or a data set cannot be checked.
    """
    from mmengine.registry import init_default_scope

    from rass_mm.datasets.check.listing import leaf_datasets

    init_default_scope(config.get('default_scope') or 'mmseg')
    loaders = {split: config.get(f'{split}_dataloader') for split in splits or SPLITS}
    absent = [split for split, loader in loaders.items() if not loader]
    if absent and (splits or len(absent) == len(SPLITS)):
        raise ConfigError(f'The config has no {" and no ".join(f"{split}_dataloader" for split in absent)}.')
    done = {}
    for split, loader in loaders.items():
        for name, dataset in leaf_datasets(loader['dataset'], split) if loader else ():
            key = repr(dataset)
            if key not in done:
                done[key] = _check(dataset, split, name, limit, workers)
                yield done[key]
            else:
                yield _repeated(done[key], name)


def _check(dataset: dict[str, Any], split: str, name: str, limit: int | None, workers: int) -> 'DataReport':
    from rass_mm.datasets.check.findings import DataReport, report_on
    from rass_mm.datasets.check.listing import list_dataset
    from rass_mm.datasets.check.reading import read_samples

    data = {key: dataset.get(key) for key in ('type', 'data_root', 'data_prefix', 'ann_file') if dataset.get(key)}
    try:
        listing = list_dataset(dataset, f'{split}_dataloader')
    except DataError as error:
        return DataReport(name, data, str(error))
    if listing.rules:
        data |= {'labels': listing.labels, 'reduce_zero_label': listing.rules.reduce_zero_label}
    return report_on(name, data, listing, read_samples(listing.samples[:limit], workers, name))


def _repeated(report: 'DataReport', name: str) -> 'DataReport':
    """The same findings under another split's name."""
    return dataclasses.replace(report, name=name, same_as=report.name)
