"""Check of the data sets in a config: lists and reads their files and creates a report on each."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from mmengine.registry import init_default_scope

from rass_mm.config.building import reading_parts
from rass_mm.datasets.check.findings import DataReport, report_on
from rass_mm.datasets.check.listing import list_dataset
from rass_mm.datasets.check.reading import read_samples
from rass_mm.datasets.class_checks import class_faults, ignored_faults
from rass_mm.datasets.wrappers import leaf_datasets, leaf_paths
from rass_mm.errors import ConfigError, DataError

SPLITS = ('train', 'val', 'test')


def check_config(
    config: dict[str, Any], splits: list[str] | None = None, limit: int | None = None, workers: int = 1
) -> Iterator[DataReport]:
    """Checks the data sets of a config and yields a report on each. Data sets inside a wrapper have separate reports.

    Args:
        config: a config with `{train,val,test}_dataloader`.
        splits: some of 'train', 'val', 'test'; None checks all splits of the config.
        limit: number of images to read per data set; None reads all.
        workers: number of processes.

    Raises:
        ConfigError: the config has no data set for a requested split, or a data set cannot be checked.
        DataError: a worker process was killed.
    """
    init_default_scope(config.get('default_scope') or 'mmseg')
    loaders = {split: config.get(f'{split}_dataloader') for split in splits or SPLITS}
    absent = [split for split, loader in loaders.items() if not loader]
    if absent and (splits or len(absent) == len(SPLITS)):
        raise ConfigError(
            f'The config has no {" and no ".join(f"{split}_dataloader" for split in absent)}. Add it to the '
            'config, or select other splits.'
        )
    done = {}
    for split, loader in loaders.items():
        leaves = leaf_datasets(loader['dataset'], split) if loader else ()
        for (name, dataset), (path, _) in zip(leaves, leaf_paths(loader, f'{split}_dataloader'), strict=True):
            key = repr(dataset)
            if key not in done:
                with reading_parts():
                    conflicts = [*class_faults(config, path, dataset), *ignored_faults(config, path, dataset)]
                report = _check(dataset, split, name, limit, workers)
                done[key] = dataclasses.replace(report, conflicts=conflicts)
                yield done[key]
            else:
                yield _repeated(done[key], name)


def _check(dataset: dict[str, Any], split: str, name: str, limit: int | None, workers: int) -> DataReport:
    data = {key: dataset.get(key) for key in ('type', 'data_root', 'data_prefix', 'ann_file') if dataset.get(key)}
    try:
        with reading_parts():
            listing = list_dataset(dataset, f'{split}_dataloader')
    except DataError as error:
        return DataReport(name, data, str(error))
    if listing.rules:
        data |= {'labels': listing.labels, 'reduce_zero_label': listing.rules.reduce_zero_label}
    return report_on(name, data, listing, read_samples(listing, limit, workers, name))


def _repeated(report: DataReport, name: str) -> DataReport:
    """Returns a copy of a report, for another split that uses the same data set."""
    return dataclasses.replace(report, name=name, same_as=report.name)
