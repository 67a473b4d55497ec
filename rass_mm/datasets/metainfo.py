"""Class names and palette of the data sets in a config, and checks of their form.

mmseg accepts almost any value. It takes a string for a list of its letters, and fails at the first validation if there
are no names.
"""

import inspect
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from rass_mm.datasets.wrappers import leaf_paths
from rass_mm.errors import ConfigError, clipped


def dataset_class(dataset: Mapping[str, Any]) -> Any:
    """Returns the class of a data set config, or None if its name is not registered."""
    kind = dataset.get('type')
    return DATASETS.get(kind) if isinstance(kind, str) else kind


def is_segmentation(dataset: Mapping[str, Any]) -> bool:
    """Returns whether the class of a data set config is mmseg's `BaseSegDataset` or derived from it."""
    kind = dataset_class(dataset)
    return inspect.isclass(kind) and issubclass(kind, BaseSegDataset)


def read_metainfo(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metainfo of a data set config and its type, or an empty dict if it has no list of class names."""
    kind = dataset_class(dataset)
    if not hasattr(kind, '_load_metainfo'):
        return {}
    found = kind._load_metainfo(dataset.get('metainfo'))  # which also reads a file of names
    return found if isinstance(found.get('classes'), list | tuple) else {}


def dataset_classes(dataset: Mapping[str, Any]) -> list[str]:
    """Returns the class names of a data set config, from `metainfo` or the type, or an empty list if there are none."""
    return list(read_metainfo(dataset).get('classes') or ())


def check_metainfo(config: Mapping[str, Any], loaders: tuple[str, ...]) -> None:
    """Checks the class names and the palettes of the data sets of a config.

    Args:
        config: a config with data loaders.
        loaders: names of the data loaders.

    Raises:
        ConfigError: class names are not a list of different strings, or the palette has another length. The message
            contains the key.
    """
    for loader in loaders:
        for path, dataset in leaf_paths(config.get(loader), loader):
            fault = _fault(dataset, path)
            if fault:
                raise ConfigError(fault)


def _fault(dataset: Mapping[str, Any], path: str) -> str | None:
    kind, given = dataset_class(dataset), dataset.get('metainfo')
    if not hasattr(kind, '_load_metainfo'):
        return None
    if given is not None and not isinstance(given, Mapping):
        return f"{path}.metainfo is {clipped(repr(given))}, but it should be a dict: dict(classes=('road', 'car'))."
    try:
        found = kind._load_metainfo(given)
    except (OSError, ValueError) as error:
        return f'{path}.metainfo names a file that cannot be read ({error}). Pass a text file of one name per line.'
    own = 'classes' in (given or {})
    key = f'{path}.metainfo.classes' if own else f"{kind.__name__}.METAINFO['classes'] ({path})"
    return _names_fault(key, found.get('classes')) or _palette_fault(path, dataset, found)


def _names_fault(key: str, names: Any) -> str | None:
    if names is None:
        return None
    if isinstance(names, str):
        return (
            f'{key} is {clipped(repr(names))}, but it should be a tuple or list of names, or a text file of one name '
            f'per line. A tuple of a single name needs a comma: ({clipped(repr(names))},).'
        )
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return f'{key} is {clipped(repr(names))}, but it should be a tuple or list of names. Correct it.'
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        return f'{key} contains {twice[0]!r} more than once. Give each class its own name.'
    return None


def _palette_fault(path: str, dataset: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    names, palette = found.get('classes'), found.get('palette')
    if not names or palette is None or not is_segmentation(dataset):
        return None
    if isinstance(palette, str) or not hasattr(palette, '__len__'):
        return f'{path}.metainfo.palette is {clipped(repr(palette))}, but it should be a list of RGB colours.'
    known = dataset_class(dataset).METAINFO.get('classes')
    allowed = {0, len(names)} | ({len(known)} if known and list(known) != list(names) else set())  # of a selection
    if len(palette) in allowed:
        return None
    return (
        f'{path}.metainfo.palette has {len(palette)} colours, but there are {len(names)} classes. Give one RGB colour '
        'per class, or remove the palette.'
    )
