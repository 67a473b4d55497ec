"""Reading config files that are data: JSON and YAML."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config

from rass_mm.config.rules import AS_PY, check_config_data, entries
from rass_mm.config.shipped import config_path
from rass_mm.config.yaml_data import parse_yaml
from rass_mm.errors import ConfigError

SUFFIXES = ('.json', '.yaml', '.yml')
BYTES = 4 * 2**20
TEMPLATE = re.compile(r'\{\{.*\}\}', re.DOTALL)


def read_config_data(
    file: str | os.PathLike, _chain: tuple[Path, ...] = (), bases_allowed: bool = True, remedy: str = AS_PY
) -> tuple[dict[str, Any], str]:
    """Reads a `.json` or `.yaml` config and returns its content, with all bases merged, and its text.

    A base (`_base_`) is a `.json` or `.yaml` file in the config's own folder or below it, or the name of a shipped
    config, e.g. `rass/rass_scenes_tiny.py`. Templates (`{{...}}`) are allowed in `.py` configs only. Without
    `bases_allowed`, the config must be complete. `remedy` is the end of a message, see `check_config_data`.

    Raises:
        ConfigError: the file is not readable or breaks a rule of `check_config_data`.
    """
    file = Path(os.path.abspath(os.path.expanduser(file)))
    if file in _chain:
        raise ConfigError(
            f'{file} inherits from itself: {" -> ".join(map(str, (*_chain, file)))}. Change the _base_ of one of them.'
        )
    text = _read_text(file)
    content = _parse(text, file)
    if '_base_' in content and not bases_allowed:
        raise ConfigError(
            f'{file}: _base_={content["_base_"]!r} is not allowed. This config must be complete. {remedy}'
        )
    bases = content.pop('_base_', [])
    check_config_data(content, str(file), [file.parent], remedy)
    _refuse_templates(content, file)
    merged: dict[str, Any] = {}
    for name in bases if isinstance(bases, list | tuple) else [bases]:
        base = _read_base(name, file, (*_chain, file))
        twice = merged.keys() & base.keys()
        if twice:
            raise ConfigError(f'{file}: two bases set {", ".join(sorted(twice))}. Remove one of the two bases.')
        merged |= base
    if merged:
        content = _merged(content, merged, file)
    return content, text


def _merged(content: dict[str, Any], base: dict[str, Any], file: Path) -> dict[str, Any]:
    try:
        merged = Config._merge_a_into_b(content, base)
    except TypeError as error:
        raise ConfigError(f'{file}: {error}') from None
    check_config_data(merged, str(file), [file.parent])
    return merged


def _read_text(file: Path) -> str:
    if file.exists() and not file.is_file():  # opening a pipe can wait forever
        raise ConfigError(f'{file} is not a file, but a folder, a pipe or a device. Pass a config file.')
    try:
        with open(file, 'rb') as stream:
            content = stream.read(BYTES + 1)
        if len(content) > BYTES:
            raise ConfigError(f'{file} is larger than {BYTES // 2**20} MB, which is the limit for a config.')
        return content.decode()
    except OSError as error:
        raise ConfigError(f'{file} cannot be read: {error.strerror}.') from None
    except UnicodeDecodeError:
        raise ConfigError(f'{file} is not UTF-8 text. Save it with the encoding UTF-8.') from None


def _parse(text: str, file: Path) -> dict[str, Any]:
    if file.suffix != '.json':
        content = parse_yaml(text, str(file))
    else:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f'{file} is not valid JSON: {error}') from None
    if not isinstance(content, dict):
        raise ConfigError(f'{file} contains a {type(content).__name__}. A config must be a mapping of keys to values.')
    reserved = content.keys() & {'filename', 'text', 'pretty_text', 'env_variables'}
    if reserved:
        raise ConfigError(f'{file}: the key {min(reserved)!r} is reserved by mmengine. Rename it.')
    return content


def _refuse_templates(content: dict[str, Any], file: Path) -> None:
    for path, _, value in entries(content):
        if isinstance(value, str) and TEMPLATE.search(value):
            raise ConfigError(
                f'{file}: {path}={value!r} contains a template, which only .py configs support. Write the value itself '
                f'or set it with --cfg-options.'
            )


def _read_base(name: Any, file: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    base = None
    with suppress(OSError, ValueError):  # the name is not a valid file name
        base = _found_base(str(name), file.parent)
    if base is None:
        raise ConfigError(
            f'{file}: _base_={name!r} is not allowed. A .json or .yaml config can inherit from .json and .yaml files '
            f"in its own folder or below it, and from shipped configs by name, e.g. 'rass/rass_scenes_tiny.py'. {AS_PY}"
        )
    if base.suffix in SUFFIXES:
        return read_config_data(base, chain)[0]
    return Config.fromfile(str(base), import_custom_modules=False).to_dict()


def _found_base(name: str, folder: Path) -> Path | None:
    beside, root = Path(os.path.abspath(folder / name)), config_path().resolve()
    if beside.suffix in SUFFIXES and beside.is_relative_to(folder) and beside.is_file():
        return beside
    for shipped in (beside.resolve(), (root / name).resolve()):
        if shipped.is_relative_to(root) and shipped.suffix == '.py' and shipped.is_file():
            return shipped
    return None
