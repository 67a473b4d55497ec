"""Loads a config from a file or by the name of a shipped config."""

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from rass_mm.config.data import SUFFIXES, read_config_data
from rass_mm.config.shipped import config_path
from rass_mm.errors import ConfigError


def load_config(path: str | os.PathLike, options: dict[str, Any] | None = None) -> Config:
    """Reads a config and applies `options`, in which keys may be dotted, e.g. `{'model.backbone.depth': 50}`.

    If `path` is not a file, it is the name of a shipped config. A `.py` config is code by design. A `.json` or `.yaml`
    config is data, see `check_config_data`.

    Raises:
        ConfigError: the config does not exist, or it is data and breaks a rule.
    """
    file = Path(path) if Path(path).is_file() else config_path(str(path))
    if file.suffix in SUFFIXES:
        content, text = read_config_data(file)
        config = Config(content, cfg_text=text, filename=str(file))
    elif file.suffix == '.py':
        config = Config.fromfile(str(file))
    else:
        raise ConfigError(f'{file} is not a config. Pass a file that ends in .py, .json, .yaml or .yml.')
    if options:
        config.merge_from_dict(options)
    return config
