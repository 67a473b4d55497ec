"""Config of a segmentor in a pack: the model and its test pipeline, as YAML without code and without paths."""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from mmengine.config import Config, ConfigDict

from rass_mm.config import read_config_data
from rass_mm.config.kinds import name_types
from rass_mm.config.parts import dicts
from rass_mm.config.rules import WEIGHT_KEYS, entries
from rass_mm.config.yaml_data import TUPLE
from rass_mm.diffusion.pack_base import pack_base
from rass_mm.errors import ConfigError, PackError, clipped
from rass_mm.files.packs.reading import AGAIN, Pack
from rass_mm.files.packs.schema import CONFIG
from rass_mm.inference.source import ADAPTERS

KEYS = ('default_scope', 'custom_imports', 'model', 'test_pipeline')
"""Keys of a packed config."""
FILES = ('autoencoder', 'weights', 'condition')
"""Keys of parts of a model that name files which packs do not contain."""
PATH = re.compile(r'([/~\\]|[A-Za-z]:[/\\])|(.*[/\\])?\.\.([/\\]|$)')
"""An absolute path, or one that leads out of a folder."""


class _Dumper(yaml.SafeDumper):
    """Writes plain values and tuples, and refuses all other objects."""


_Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_sequence(TUPLE, value))


def config_to_pack(
    config: Config, model: Mapping[str, Any], steps: Sequence[Any], adapters: Mapping[str, str], base: str | None
) -> dict[str, Any]:
    """Returns the content of a packed config.

    Args:
        config: config of the segmentor.
        model: its model, without initial weights.
        steps: configs of the steps of its test pipeline.
        adapters: key of the config, e.g. `model.backbone.scr_adapter` -> name of the file in the pack.
        base: name of the base, or None.

    Raises:
        ConfigError: the model needs a file that packs do not contain.
    """
    content = {key: config[key] for key in KEYS[:2] if config.get(key)}
    content |= {'model': ConfigDict(model).to_dict(), 'test_pipeline': [dict(step) for step in steps]}
    content = copy.deepcopy(Config(content)._cfg_dict.to_dict())
    name_types(content)
    for key, part in dicts(content['model'], 'model'):
        _strip(part)
        if 'base' in part:
            part['base'] = base
        for name in ADAPTERS:
            if isinstance(part.get(name), str):
                part[name] = adapters[f'{key}.{name}']
    for path, key, value in entries(content):
        if key in FILES and isinstance(value, str):
            raise ConfigError(
                f'{path}={value!r} is a file that the model needs, but packs contain only the weights, the adapter and '
                'the base. Pack a model without it.'
            )
        if isinstance(value, str) and PATH.match(value):
            raise ConfigError(f'{path}={clipped(value)!r} is a path of this machine. Pack a model without it.')
    return content


def _strip(part: dict[str, Any]) -> None:
    """Removes initial weights and the folder of stored tokens, which only this machine has."""
    for name in [name for name, value in part.items() if name in WEIGHT_KEYS and isinstance(value, str)]:
        part[name] = None
    start = part.get('init_cfg')
    if isinstance(start, dict) and start.get('type') == 'Pretrained':
        part['init_cfg'] = None
    if isinstance(part.get('cache'), str):
        part['cache'] = None


def config_text(content: Mapping[str, Any]) -> str:
    """Returns a config as YAML.

    Raises:
        ConfigError: it contains an object that is not data.
    """
    try:
        return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    except yaml.YAMLError as error:
        raise ConfigError(
            f'The config contains an object that is not data ({clipped(str(error))}). Packs contain no code.'
        ) from None


def packed_config(pack: Pack) -> Config:
    """Reads the config of an opened pack as data, see `rass_mm.config.rules.check_config_data`.

    Raises:
        PackError: the config names code, a base config, initial weights or a path outside the pack.
    """
    file = pack.path(CONFIG)
    try:
        content, text = read_config_data(file, bases_allowed=False, remedy=AGAIN)
    except ConfigError as error:
        raise PackError(f'The config of the pack cannot be used: {error}') from None
    for fault in _faults(content, pack):
        raise PackError(f'{file}: {fault} {AGAIN}')
    return Config(content, cfg_text=text, filename=str(file))


def _faults(content: Mapping[str, Any], pack: Pack) -> Iterator[str]:
    other = sorted(set(content) - set(KEYS))
    if other or not isinstance(content.get('model'), dict):
        yield f'a packed config has the keys {", ".join(KEYS)}, but found {", ".join(map(str, other)) or "no model"}.'
        return
    for path, key, value in entries(dict(content)):
        if not isinstance(value, str):
            continue
        if key in WEIGHT_KEYS or key in FILES:
            yield f'{path}={clipped(value)!r} names a file with weights, but a pack has no others than its own.'
        if PATH.match(value):
            yield f'{path}={clipped(value)!r} is a path that leads out of the pack.'
        if key in ADAPTERS and pack.manifest['adapters'].get(path) != value:
            yield f'{path}={clipped(value)!r} is not an adapter of the pack.'


def use_pack(model: ConfigDict, pack: Pack, base: bool) -> None:
    """Sets the paths of the adapters and, if `base` is True, of the base in a packed model, in place.

    Raises:
        BaseFolderError: the base was not found, see `pack_base`.
    """
    needed = [part for _, part in dicts(model, 'model') if 'base' in part]
    folder = pack_base(pack) if base and needed else None
    if needed and base and folder is None:
        raise PackError(f'{pack.folder}: the model has a base, but the manifest has none. {AGAIN}')
    for key, part in dicts(model, 'model'):
        if 'base' in part and folder is not None:
            part['base'] = str(folder)
        for name in ADAPTERS:
            file = pack.manifest['adapters'].get(f'{key}.{name}')
            if file is not None and isinstance(part.get(name), str) and part[name] == file:
                part[name] = str(pack.path(file))
