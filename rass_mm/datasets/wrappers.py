"""Data sets inside wrappers such as `ConcatDataset` and `RepeatDataset`."""

from collections.abc import Iterator
from typing import Any


def leaf_datasets(config: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the configs inside wrappers such as `ConcatDataset` and `RepeatDataset`, with names like `train[0]`."""
    if 'datasets' in config:
        for number, part in enumerate(config['datasets']):
            yield from leaf_datasets(part, f'{name}[{number}]')
    elif 'dataset' in config:
        yield from leaf_datasets(config['dataset'], name)
    else:
        yield name, config


def leaf_paths(loader: dict[str, Any] | None, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the data sets of a dataloader config with their keys, e.g. `train_dataloader.dataset.datasets.0`."""
    dataset = (loader or {}).get('dataset')
    if isinstance(dataset, dict):
        yield from _leaves(dataset, f'{path}.dataset')


def _leaves(config: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if 'datasets' in config:
        for number, part in enumerate(config['datasets']):
            yield from _leaves(part, f'{path}.datasets.{number}')
    elif 'dataset' in config:
        yield from _leaves(config['dataset'], f'{path}.dataset')
    else:
        yield path, config


def image_folders(dataset: Any) -> Iterator[str]:
    """Yields the image folders of a built data set, and of those inside wrappers."""
    for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if part is not None:
            yield from image_folders(part)
    prefixes = getattr(dataset, 'data_prefix', None) or {}
    folder = prefixes.get('img_path', prefixes.get('img'))
    if folder:
        yield folder


def data_infos(dataset: Any) -> Iterator[dict[str, Any]]:
    """Yields the description of each sample of a built data set, without loading its files."""
    for index in range(len(dataset)):
        yield dataset.get_data_info(index)
