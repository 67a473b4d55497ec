"""Data set configs inside wrappers."""

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
