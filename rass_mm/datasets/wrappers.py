"""Data sets inside wrappers such as `ConcatDataset` and `RepeatDataset`."""

from collections.abc import Iterator
from typing import Any


def leaf_datasets(config: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields a name, e.g. `train[0]`, and the config of each data set in a config that may contain wrappers."""
    for keys, leaf in _leaves(config):
        yield name + ''.join(f'[{key}]' for key in keys if isinstance(key, int)), leaf


def leaf_paths(loader: dict[str, Any] | None, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the key, e.g. `train_dataloader.dataset.datasets.0`, and the config of each data set of a dataloader."""
    dataset = (loader or {}).get('dataset')
    for keys, leaf in _leaves(dataset) if isinstance(dataset, dict) else ():
        yield '.'.join(map(str, (path, 'dataset', *keys))), leaf


def _leaves(config: dict[str, Any], keys: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple, dict[str, Any]]]:
    """Yields the keys that lead to each innermost config, and that config."""
    if 'datasets' in config:
        for number, part in enumerate(config['datasets']):
            yield from _leaves(part, (*keys, 'datasets', number))
    elif 'dataset' in config:
        yield from _leaves(config['dataset'], (*keys, 'dataset'))
    else:
        yield keys, config


def image_folders(dataset: Any) -> Iterator[str]:
    """Yields the image folders of a built data set, including those of data sets inside wrappers."""
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
