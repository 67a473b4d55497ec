"""Names of the classes that a config refers to by `type`."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from rass_mm.config.registries import registered_name


def type_name(config: Mapping[str, Any] | None) -> str:
    """Returns the `type` of a config as a name without scope and module, e.g. 'IoUMetric', or '' if it has no type."""
    kind = (config or {}).get('type') or ''
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]


def as_list(configs: Any) -> list[Any]:
    """Converts the value of a config key to a list: a single config becomes a list of one, and None an empty list."""
    if configs is None:
        return []
    return list(configs) if isinstance(configs, list | tuple) else [configs]


def name_types(config: Any) -> None:
    """Replaces the classes in a config, e.g. `type=IoUMetric`, by the names under which they are registered, in place.

    A config that contains only names can be dumped, stored in a checkpoint and compared. A class that is not registered
    is replaced by its dotted path, from which mmengine imports it.
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
