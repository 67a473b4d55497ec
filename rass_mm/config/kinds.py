"""Names of the classes that a config refers to by `type`."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from rass_mm.config.registries import registered_name


def type_name(config: Mapping[str, Any] | None) -> str:
    """Returns the name in the `type` of a config without scope and module, e.g. 'IoUMetric'; empty without a type."""
    kind = (config or {}).get('type') or ''
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


def as_list(configs: Any) -> list[Any]:
    """Returns several configs as a list: those of a list or tuple, or the single one; empty for None."""
    if configs is None:
        return []
    return list(configs) if isinstance(configs, list | tuple) else [configs]


def name_types(config: Any) -> None:
    """Replaces the classes in a config, e.g. `type=IoUMetric`, by the names under which they are registered, in place.

    A config with names only can be dumped, stored in a checkpoint and compared. A class that is not registered is named
    by its module, which mmengine imports.
    """
    config = config._cfg_dict if isinstance(config, Config) else config
    items = dict.items(config) if isinstance(config, dict) else enumerate(config)
    for key, value in list(items):
        if isinstance(value, type):
            config[key] = registered_name(value) or f'{value.__module__}.{value.__qualname__}'
        elif isinstance(value, tuple) and any(isinstance(part, dict | list | tuple | type) for part in value):
            parts = list(value)
            name_types(parts)
            config[key] = tuple(parts)
        elif isinstance(value, dict | list):
            name_types(value)
