"""The rules for configs that are data: JSON, YAML and the config text in a checkpoint."""

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
"""Keys whose value mmengine, mmcv, mmseg or mmdet look up in a registry."""
SCOPE_KEYS = {'default_scope', '_scope_'}
MODULES = (
    *('rass_mm', 'rass_mm.restoration', 'mmengine', 'mmcv', 'mmseg', 'mmseg.models', 'mmdet', 'mmdet.models'),
    'mmagic',
)
"""Modules that `custom_imports` may name."""
WEIGHT_KEYS = {'load_from', 'resume_from', 'resume', 'pretrained', 'checkpoint', 'checkpoint_file'}
"""Keys that name a file of weights to start from."""
BACKENDS = ('atomic_local', 'disk', 'hardDisk', 'lmdb', 'local')
"""File backends that neither use the network nor import a client from the path."""
CODE_KEYS = {
    'trust_remote_code': 'makes transformers and diffusers run code from a model folder',
    'custom_pipeline': 'makes diffusers run code from a folder',
    'sys_path': "is added to Python's search path",
}
EXECUTES = {
    'CameraMotionCompensation': 'evaluates its argument warp_mode',
    'RFSearchHook': 'evaluates names from its config',
    'VPD': 'imports what its diffusion_cfg names',
    'SinGAN': 'unpickles its test data',
    **dict.fromkeys(('CIFAR10', 'RefCocoDataset', 'OpenImagesChallengeDataset'), 'unpickles its data files'),
    **dict.fromkeys(('FrechetInceptionDistance', 'FID', 'FID-Full', 'TransFID'), 'unpickles statistics'),
    **dict.fromkeys(('InceptionScore', 'IS', 'TransIS', 'PrecisionAndRecall', 'PR'), 'runs a TorchScript file'),
}
"""Registered names whose own code runs or unpickles what their arguments say."""
URL = re.compile(r'\S*://')
WRITABLE_KEY = re.compile(r'[^\'"\\{}\x00-\x1f\x7f]*')
AS_PY = 'A .py config is code by design: if you trust this one, write it as .py.'


def check_config_data(config: dict, source: str, folders: Sequence[Path] = (), remedy: str = AS_PY) -> None:
    """Checks a config that is data, and imports the modules of its `custom_imports`.

    The rules, at any depth:

    - a `type` (and each other key of `NAME_KEYS`) is a registered name, with or without a scope: `IoUMetric`,
      `mmdet.CrossEntropyLoss`; no dotted path, not even one into a known package, and none of `EXECUTES`;
    - `default_scope` and `_scope_` name a known scope;
    - `custom_imports` names modules of `MODULES` only;
    - weights to start from (`WEIGHT_KEYS`) are local files below one of `folders` or below the current folder;
    - no value is a URL or names a pickle file, file backends are local, and no key of `CODE_KEYS` is set;
    - values are numbers, strings, true, false, null, lists and mappings; keys hold no quotes, backslashes or braces,
      because mmengine writes them unquoted into the `.py` copy of a config that it leaves in the work dir.

    Args:
        config: nested dicts and lists.
        source: its file, for the message.
        folders: where weights to start from may lie besides the current folder.
        remedy: the last sentence of the message.

    Raises:
        ConfigError: a rule is broken; the message has the key, the value and what is allowed.
        InstallationError: a scope's package is not installed.
    """
    stop_importing()
    try:
        check_imports(config)
        for path, key, value in entries(config):
            _check_entry(path, key, value, folders)
    except _BrokenRuleError as error:
        raise ConfigError(f'{source}: {error} {remedy}') from None


class _BrokenRuleError(Exception):
    """A broken rule: key, value and what is allowed."""


def entries(value: Any, path: str = '', key: Any = None, depth: int = 0) -> Iterator[tuple[str, Any, Any]]:
    """Each value of a nested config with its dotted path and the dict key it stands under."""
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
    """Checks scopes and `custom_imports` and loads them: what they register may be named."""
    for path, key, value in entries(config):
        if key in SCOPE_KEYS and value is not None:
            if not isinstance(value, str) or value not in scopes():
                raise _BrokenRuleError(
                    f'{path}={value!r} is not a known scope. Known are {", ".join(sorted(scopes()))}.'
                )
            load_scope(value)
        elif key == 'custom_imports' and value:
            _import(path, value)


def _import(path: str, value: Any) -> None:
    if not isinstance(value, dict) or not set(value) <= {'imports', 'allow_failed_imports'}:
        raise _BrokenRuleError(f'{path}={value!r} is refused; it holds imports=[...] and allow_failed_imports only.')
    names = value.get('imports') or []
    for index, name in enumerate(names if isinstance(names, list | tuple) else [names]):
        if name not in MODULES:
            raise _BrokenRuleError(f'{path}.imports[{index}]={name!r} is refused. Allowed are {", ".join(MODULES)}.')
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
        raise _BrokenRuleError(f'{path}={value!r} is refused: {key} {CODE_KEYS[key]}.')
    if isinstance(value, str):
        _check_string(path, key, value, folders)


def _check_string(path: str, key: Any, value: str, folders: Sequence[Path]) -> None:
    if key in NAME_KEYS:
        _check_name(path, value)
    elif URL.match(value):
        raise _BrokenRuleError(
            f'{path}={value!r} is refused: a config that is data names local files only. Download it first.'
        )
    elif value.lower().endswith(('.pkl', '.pickle')) or (str(key).endswith('backend') and value == 'pickle'):
        raise _BrokenRuleError(f'{path}={value!r} is refused: reading a pickle file can run any code.')
    elif key in WEIGHT_KEYS and outside(value, folders):
        places = ' or '.join(dict.fromkeys(str(folder) for folder in (*folders, Path.cwd())))
        raise _BrokenRuleError(f'{path}={value!r} is refused: weights to start from must lie below {places}.')


def _check_name(path: str, name: str) -> None:
    entry = registered(name)
    if entry is None:
        raise _BrokenRuleError(
            f'{path}={name!r} is not a registered name. In a config that is data, it must be the name of a registered '
            f"class, with or without its scope ('IoUMetric', 'mmdet.CrossEntropyLoss'); dotted paths are refused."
        )
    reason = EXECUTES.get(name.rpartition('.')[2])
    if any(parent.__name__ == 'DiffusionPipeline' for parent in getattr(entry, '_module_cls', object).__mro__):
        reason = 'imports the modules that its folder names'
    if reason:
        raise _BrokenRuleError(f'{path}={name!r} is refused: it {reason}.')


def _check_keys(path: str, key: Any, value: dict) -> None:
    for name in value:
        if not isinstance(name, str | int | float | None) or not WRITABLE_KEY.fullmatch(str(name)):
            raise _BrokenRuleError(
                f'{path or "the config"} has the key {name!r}. Keys hold no quotes, backslashes or braces.'
            )
    if key in ('backend_args', 'file_client_args') and not (
        'prefix' not in value and value.get('backend', 'local') in BACKENDS
    ):
        raise _BrokenRuleError(f'{path}={value!r} is refused. Allowed is backend={", ".join(BACKENDS)}.')


def outside(name: str, folders: Sequence[Path]) -> bool:
    """Whether a file lies neither below the current folder nor below one of `folders`."""
    file = Path(os.path.abspath(os.path.expanduser(name)))
    return not any(file.is_relative_to(os.path.abspath(folder)) for folder in (Path.cwd(), *folders))
