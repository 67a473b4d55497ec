"""Reads the config text of a checkpoint, which has Python syntax, as data."""

from typing import Any

from mmengine.config import Config

from rass_mm.config.rules import URL, WEIGHT_KEYS, check_config_data, outside
from rass_mm.errors import ConfigError
from rass_mm_cli.literals import NotLiteralError, assigned_literals

CHARACTERS = 2**20
OWN_FILE = (
    'The config text in a checkpoint is read as data. If you trust the config that was used for training, pass it as a '
    '.py file.'
)


def config_from_checkpoint(checkpoint: dict[str, Any], source: str) -> Config:
    """Returns the config that was used to train a checkpoint.

    Args:
        checkpoint: the result of `mmengine.runner.CheckpointLoader.load_checkpoint`.
        source: the file of the checkpoint, for messages.

    Raises:
        ConfigError: the checkpoint contains no config, or `config_from_text` rejects it.
    """
    text = _inside(checkpoint, 'message_hub', 'runtime_info', 'cfg') or _inside(checkpoint, 'meta', 'cfg')
    if not isinstance(text, str):
        raise ConfigError(f'{source} contains no config. Pass the config that was used for training.')
    return config_from_text(text, source)


def _inside(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def config_from_text(text: str, source: str) -> Config:
    """Parses the text that `Config.pretty_text` writes, without running it.

    Only assignments of literals and `dict(...)` are accepted. `check_config_data` checks the result. Initial weights
    that are not below the current folder are dropped (set to None), because the checkpoint contains the trained ones.

    Args:
        text: assignments in Python syntax.
        source: the origin of the text, for messages.

    Raises:
        ConfigError: a value is not a literal or breaks a rule. The message contains the key and the value.
    """
    if len(text) > CHARACTERS:
        raise ConfigError(f'{source}: the config text has {len(text)} characters. At most {CHARACTERS} are allowed.')
    try:
        content = assigned_literals(text)
    except NotLiteralError as error:
        fault = str(error) or 'nested too deeply'
        raise ConfigError(f'{source}: the config text cannot be used: {fault}. {OWN_FILE}') from None
    content = _without_foreign_weights(content)
    check_config_data(content, source, remedy=OWN_FILE)
    return Config(content, cfg_text=text)


def _without_foreign_weights(value: Any, key: Any = None) -> Any:
    if isinstance(value, dict):
        if str(value.get('type')).rpartition('.')[2] == 'Pretrained' and _foreign(value.get('checkpoint')):
            return None
        return {name: _without_foreign_weights(item, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without_foreign_weights(item, key) for item in value)
    return None if key in WEIGHT_KEYS and _foreign(value) else value


def _foreign(value: Any) -> bool:
    return isinstance(value, str) and (URL.match(value) is not None or outside(value, []))
