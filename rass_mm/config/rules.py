"""Rules for configs that are data: JSON, YAML and the config text in a checkpoint."""

import importlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rass_mm.config.registries import load_scope, registered, scopes, stop_importing
from rass_mm.errors import ConfigError

DEPTH = 100
NAME_KEYS = {
    *('type', 'constructor', 'runner_type', 'collate_fn', 'worker_init_fn', 'ema_type', 'resize_type', 'conv_type'),
    *('norm_layer', 'auto_wrap_policy', 'param_init_fn', 'check_fn'),
}
"""Keys for which mmengine, mmcv, mmseg or mmdet looks up the value in a registry."""
SCOPE_KEYS = {'default_scope', '_scope_'}
MODULES = (
    *('rass_mm', 'rass_mm.restoration', 'mmengine', 'mmcv', 'mmseg', 'mmseg.models', 'mmdet', 'mmdet.models'),
    'mmagic',
)
"""Modules that `custom_imports` may name."""
WEIGHT_KEYS = {'load_from', 'fine_tune', 'resume_from', 'resume', 'pretrained', 'checkpoint', 'checkpoint_file'}
"""Keys that name a file with initial weights."""
BACKENDS = ('atomic_local', 'disk', 'hardDisk', 'lmdb', 'local')
"""File backends that do not use the network and do not import a client from Python's path."""
CODE_KEYS = {
    'trust_remote_code': 'makes transformers and diffusers run code from a model folder',
    'custom_pipeline': 'makes diffusers run code from a folder',
    'sys_path': "is added to Python's search path",
}
EXECUTES = {
    'CameraMotionCompensation': 'evaluates its argument warp_mode',
    'RFSearchHook': 'evaluates names from its config',
    'VPD': 'imports modules that are named in its diffusion_cfg',
    'SinGAN': 'unpickles its test data',
    **dict.fromkeys(('CIFAR10', 'RefCocoDataset', 'OpenImagesChallengeDataset'), 'unpickles its data files'),
    **dict.fromkeys(('FrechetInceptionDistance', 'FID', 'FID-Full', 'TransFID'), 'unpickles statistics'),
    **dict.fromkeys(('InceptionScore', 'IS', 'TransIS', 'PrecisionAndRecall', 'PR'), 'runs a TorchScript file'),
}
"""Registered classes and functions that run or unpickle code specified by their arguments, with the reason."""
URL = re.compile(r'\S*://')
WRITABLE_KEY = re.compile(r'[^\'"\\{}\x00-\x1f\x7f]*')
AS_PY = 'A .py config is code by design. If you trust this config, save it as a .py file.'


def check_config_data(config: dict, source: str, folders: Sequence[Path] = (), remedy: str = AS_PY) -> None:
    """Checks a config that is data and imports the modules of its `custom_imports`.

    The rules apply at any depth:

    - A `type` (and any other key of `NAME_KEYS`) is a registered name, with or without a scope, e.g. `IoUMetric` or
      `mmdet.CrossEntropyLoss`. Dotted paths, even into a known package, and the names in `EXECUTES` are not allowed.
    - `default_scope` and `_scope_` name a known scope.
    - `custom_imports` names only modules of `MODULES`.
    - Initial weights (`WEIGHT_KEYS`) are local files below one of `folders` or below the current folder.
    - No value is a URL or names a pickle file, file backends are local, and no key of `CODE_KEYS` is set.
    - Values are numbers, strings, true, false, null, lists and mappings. Keys contain no quotes, backslashes or braces,
      because mmengine writes them unquoted into the `.py` copy of the config in the work directory.

    Args:
        config: nested dicts and lists.
        source: the file of the config, for the message.
        folders: folders that may contain initial weights, in addition to the current folder.
        remedy: the end of the message, which states how to fix the config.

    Raises:
        ConfigError: a rule is broken. The message contains the key, the value and the allowed values.
        InstallationError: the package of a scope is not installed.
    """
    stop_importing()
    try:
        check_imports(config)
        for path, key, value in entries(config):
            _check_entry(path, key, value, folders)
    except _BrokenRuleError as error:
        raise ConfigError(f'{source}: {error} {remedy}') from None


class _BrokenRuleError(Exception):
    """Error that reports the key, the value and the allowed values of a broken rule."""


def entries(value: Any, path: str = '', key: Any = None, depth: int = 0) -> Iterator[tuple[str, Any, Any]]:
    """Yields the dotted path, the key and the value of each entry of a config. A list item has the key of its list."""
    if depth > DEPTH:
        raise _BrokenRuleError(f'{path[:80]}... is nested more than {DEPTH} levels deep.')
    yield path, key, value
    if isinstance(value, dict):
        for name, item in value.items():
            yield from entries(item, f'{path}.{name}' if path else str(name), name, depth + 1)
    elif isinstance(value, list | tuple | set):
        for index, item in enumerate(value):
            yield from entries(item, f'{path}[{index}]', key, depth + 1)


def check_imports(config: dict) -> None:
    """Checks and loads the scopes and the `custom_imports` of a config, because they register further classes."""
    for path, key, value in entries(config):
        if key in SCOPE_KEYS and value is not None:
            if not isinstance(value, str) or value not in scopes():
                raise _BrokenRuleError(
                    f'{path}={value!r} is not a known scope. The known scopes are {", ".join(sorted(scopes()))}.'
                )
            load_scope(value)
        elif key == 'custom_imports' and value:
            _import(path, value)


def _import(path: str, value: Any) -> None:
    if not isinstance(value, dict) or not set(value) <= {'imports', 'allow_failed_imports'}:
        raise _BrokenRuleError(f'{path}={value!r} is not allowed. Set only imports=[...] and allow_failed_imports.')
    names = value.get('imports') or []
    for index, name in enumerate(names if isinstance(names, list | tuple) else [names]):
        if name not in MODULES:
            raise _BrokenRuleError(f'{path}.imports[{index}]={name!r} is not allowed. Use only {", ".join(MODULES)}.')
        load_scope(name)
        try:
            importlib.import_module(name)
        except ImportError as error:
            if not value.get('allow_failed_imports'):
                raise _BrokenRuleError(f'{path}.imports[{index}]={name!r} cannot be imported ({error}).') from error


def _check_entry(path: str, key: Any, value: Any, folders: Sequence[Path]) -> None:
    if key == 'type' and not isinstance(value, str | list | tuple | dict | None):
        raise _BrokenRuleError(f'{path}={value!r} is not a name. Write the name of a registered class in quotes.')
    if isinstance(value, dict):
        _check_keys(path, key, value)
    elif not isinstance(value, str | int | float | list | tuple | set | None):
        raise _BrokenRuleError(f'{path} is a {type(value).__name__}. Write it as a number or, in quotes, as a string.')
    if key in CODE_KEYS and value:
        raise _BrokenRuleError(f'{path}={value!r} is not allowed because {key} {CODE_KEYS[key]}.')
    if isinstance(value, str):
        _check_string(path, key, value, folders)


def _check_string(path: str, key: Any, value: str, folders: Sequence[Path]) -> None:
    if key in NAME_KEYS:
        _check_name(path, value)
    elif URL.match(value):
        raise _BrokenRuleError(
            f'{path}={value!r} is not allowed. A config that is data may refer only to local files. Download the '
            'file first.'
        )
    elif value.lower().endswith(('.pkl', '.pickle')) or (str(key).endswith('backend') and value == 'pickle'):
        raise _BrokenRuleError(f'{path}={value!r} is not allowed because reading a pickle file can run arbitrary code.')
    elif key in WEIGHT_KEYS and outside(value, folders):
        places = ' or '.join(dict.fromkeys(str(folder) for folder in (*folders, Path.cwd())))
        raise _BrokenRuleError(f'{path}={value!r} is not allowed. Move the weights to {places} or a subfolder.')


def _check_name(path: str, name: str) -> None:
    entry = registered(name)
    if entry is None:
        raise _BrokenRuleError(
            f'{path}={name!r} is not a registered name. In a config that is data, it must be the name of a registered '
            f"class, with or without its scope ('IoUMetric', 'mmdet.CrossEntropyLoss'). Dotted paths are not allowed."
        )
    reason = EXECUTES.get(name.rpartition('.')[2])
    if any(parent.__name__ == 'DiffusionPipeline' for parent in getattr(entry, '_module_cls', object).__mro__):
        reason = 'imports modules that are named in its folder'
    if reason:
        raise _BrokenRuleError(f'{path}={name!r} is not allowed because it {reason}.')


def _check_keys(path: str, key: Any, value: dict) -> None:
    for name in value:
        if not isinstance(name, str | int | float | None) or not WRITABLE_KEY.fullmatch(str(name)):
            raise _BrokenRuleError(
                f'{path or "the config"} has the key {name!r}. Keys must not contain quotes, backslashes or braces.'
            )
    if key in ('backend_args', 'file_client_args') and not (
        'prefix' not in value and value.get('backend', 'local') in BACKENDS
    ):
        raise _BrokenRuleError(f'{path}={value!r} is not allowed. Set backend to one of {", ".join(BACKENDS)}.')


def outside(name: str, folders: Sequence[Path]) -> bool:
    """Returns whether a file is neither below the current folder nor below one of `folders`."""
    file = Path(os.path.abspath(os.path.expanduser(name)))
    return not any(file.is_relative_to(os.path.abspath(folder)) for folder in (Path.cwd(), *folders))
