"""Replaces mmengine's readers of YAML, JSON and config text, so that such configs are read as data and run no code.

Without these replacements, mmengine's `Runner.resume` and mmseg's inferencer run the config text of a checkpoint as
Python, and mmengine's `Config.fromfile` reads YAML with a loader that can call functions.
"""

import os
from typing import Any

from mmengine.config import Config
from mmengine.fileio import register_handler

from rass_mm.config.data import SUFFIXES, read_config_data
from rass_mm.config.py_files import explained_reading
from rass_mm.config.text import config_from_text
from rass_mm.config.yaml_data import DataYamlHandler

_file2dict, _fromstring = Config._file2dict, Config.fromstring


def close_doors() -> None:
    """Makes `Config.fromfile` and `Config.fromstring` apply the rules for data to JSON, YAML and config text.

    `.py` files are still read by mmengine. An error in one is raised as a ConfigError with the file and the line.
    """
    Config._file2dict = staticmethod(_read_file)
    Config.fromstring = staticmethod(_read_string)
    register_handler(['yaml', 'yml'])(DataYamlHandler)


def _read_file(filename: str | os.PathLike, *args: Any, **kwargs: Any) -> tuple[dict, str, dict]:
    if not str(filename).endswith(SUFFIXES):
        with explained_reading(filename):
            return _file2dict(filename, *args, **kwargs)
    content, text = read_config_data(filename)
    return content, text, {}


def _read_string(cfg_str: str, file_format: str) -> Config:
    if file_format != '.py':
        return _fromstring(cfg_str, file_format)
    return config_from_text(cfg_str, 'The config text in the checkpoint')
