"""Loads a config from a file or by the name of a shipped config."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config

from rass_mm.config.data import SUFFIXES, read_config_data
from rass_mm.config.names import RUNNER_KEYS, did_you_mean
from rass_mm.config.py_files import explained_reading
from rass_mm.config.shipped import config_path
from rass_mm.errors import ConfigError

SIMILAR = 0.75
"""Similarity above which an unknown key is taken for a misspelled one."""


def load_config(path: str | os.PathLike, options: dict[str, Any] | None = None) -> Config:
    """Reads a config and applies `options`, in which keys may be dotted, e.g. `{'model.backbone.depth': 50}`.

    If `path` is not a file, it is the name of a shipped config. A `.py` config is code by design. A `.json` or `.yaml`
    config is data, see `check_config_data`.

    Raises:
        ConfigError: the config does not exist or cannot be read, it is data and breaks a rule, or an option cannot be
            set.
    """
    file = Path(path) if Path(path).is_file() else config_path(str(path))
    if file.suffix in SUFFIXES:
        content, text = read_config_data(file)
        config = Config(content, cfg_text=text, filename=str(file))
    elif file.suffix == '.py':
        with explained_reading(file):
            config = Config.fromfile(str(file))
    else:
        raise ConfigError(f'{file} is not a config. Pass a file that ends in .py, .json, .yaml or .yml.')
    if options:
        merge_options(config, options)
    return config


def merge_options(config: Config, options: Mapping[str, Any]) -> None:
    """Sets values of a config by dotted key, in place.

    Raises:
        ConfigError: a key leads into a value that has no keys, or beyond the end of a list, or its first part is not a
            key of the config but similar to one.
    """
    for key in options:
        _check_key(config, key)
    try:
        config.merge_from_dict(dict(options))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(_misplaced(config, options, error)) from error


def _check_key(config: Config, key: str) -> None:
    first = key.partition('.')[0]
    known = [*config.keys(), *RUNNER_KEYS]
    if not all(key.split('.')):
        raise ConfigError(f'The option {key!r} has an empty part. Write KEY=VALUE with dots between the parts of KEY.')
    if first not in known:
        similar = get_close_matches(first, known, 1, SIMILAR)
        if similar:
            raise ConfigError(f'The option {key!r} sets {first}, which the config lacks. {did_you_mean(similar)}')


def _misplaced(config: Config, options: Mapping[str, Any], error: Exception) -> str:
    """Describes the first option that cannot be set."""
    for option in options:
        value: Any = config._cfg_dict
        path = ''
        for part in option.split('.'):
            if isinstance(value, list | tuple):
                if not part.isdecimal() or int(part) >= len(value):
                    return (
                        f'The option {option!r} cannot be set: {path} is a list of {len(value)} values, so {part!r} '
                        f'must be a number from 0 to {len(value) - 1}.'
                    )
                value = value[int(part)]
            elif isinstance(value, dict):
                value = value.get(part, {})
            else:
                return f'The option {option!r} cannot be set: {path} is {value!r} and has no keys. Set {path} itself.'
            path = f'{path}.{part}' if path else part
    return f'The options {", ".join(options)} cannot be set: {error}. Correct the keys.'
