"""Checks of a config's values before anything is built from it.

Constructors of mmengine, mmseg and PyTorch accept many wrong values, and fail later without naming the key. The rules
here cover the keys that have one meaning wherever they occur. The arguments of this package's classes are checked when
they are built, see `rass_mm.config.building`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    VISUALIZERS,
    Registry,
)

from rass_mm.config.arguments import value_fault
from rass_mm.config.key_types import KEYS, NESTED, RESTORING, SLIDING, TOP
from rass_mm.config.messages import unknown_name
from rass_mm.config.names import is_misspelled, suggestion
from rass_mm.config.registries import load_scope, registered, scopes
from rass_mm.config.training import train_cfg_fault
from rass_mm.errors import ConfigError

TEST_CFGS = {'RASS': SLIDING, 'EncoderDecoder': SLIDING, 'SCRRestorer': RESTORING}
OPEN = 'EncoderDecoder'
"""Model whose `test_cfg` may have further keys, which mmseg ignores or passes to the decode head."""
PLACES: dict[str, Registry] = {
    **dict.fromkeys(('model', 'segmentor', 'restorer', 'backbone', 'neck', 'decode_head', 'auxiliary_head'), MODELS),
    **dict.fromkeys(('prompt', 'test_prompt', 'tagger', 'data_preprocessor', 'loss_decode', 'tta_model'), MODELS),
    **dict.fromkeys(('dataset', 'datasets'), DATASETS),
    **dict.fromkeys(('pipeline', 'transforms'), TRANSFORMS),
    **dict.fromkeys(('sampler', 'batch_sampler'), DATA_SAMPLERS),
    **dict.fromkeys(('train_evaluator', 'val_evaluator', 'test_evaluator'), METRICS),
    **dict.fromkeys(('default_hooks', 'custom_hooks'), HOOKS),
    'optim_wrapper': OPTIM_WRAPPERS,
    'optimizer': OPTIMIZERS,
    'param_scheduler': PARAM_SCHEDULERS,
    'visualizer': VISUALIZERS,
}
"""Keys below which a `type` is looked up, and the registry."""
TYPED = (DATASETS, TRANSFORMS, HOOKS, METRICS, DATA_SAMPLERS)
"""Registries without a default type."""
FOREIGN = ('Albu', 'Albumentations')
"""Transforms whose `transforms` are names of another library."""
LOOPS_OF = ('train_cfg', 'val_cfg', 'test_cfg')
NEEDED = {
    'train': ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
    'test': ('model', 'test_dataloader', 'test_evaluator', 'test_cfg'),
    'model': ('model',),
    'data': (),
}
"""Keys that a command needs."""
USED = {
    'train': ('val_dataloader', 'val_evaluator', 'val_cfg', 'param_scheduler', 'custom_hooks'),
    'data': ('train_dataloader', 'val_dataloader', 'test_dataloader'),
}
SHARED = ('default_hooks', 'randomness', 'default_scope', 'visualizer', 'log_processor', 'env_cfg')


def check_settings(config: Config | Mapping[str, Any], purpose: str) -> None:
    """Checks the values that a command uses.

    Args:
        config: the config.
        purpose: 'train', 'test', 'model' (only the model is used) or 'data' (only the data sets are used).

    Raises:
        ConfigError: a key is missing, or its value is wrong. The message contains the file, the key and its value.
    """
    source = getattr(config, 'filename', None) or 'The config'
    content = config._cfg_dict.to_dict() if isinstance(config, Config) else config
    keys = (*NEEDED[purpose], *USED.get(purpose, ()), *(SHARED if purpose in ('train', 'test') else ()))
    faults = (fault for check in CHECKS for fault in check(content, keys))
    needed = NEEDED[purpose]
    for key in needed:
        if not isinstance(content.get(key), dict) and not (key == 'test_evaluator' and content.get(key)):
            raise ConfigError(_lacking(source, key, content))
    fault = next(faults, None)
    if fault:
        raise ConfigError(f'{source}: {fault}')


def _lacking(source: str, key: str, content: Mapping[str, Any]) -> str:
    found = f'{key} is {content[key]!r}' if key in content else f'the config has no {key}'
    return (
        f'{source}: {found}, but a dict is required. Set {key} as in the shipped configs (rass-mm configs lists them), '
        'or inherit from one of them with _base_.'
    )


def _absent(content: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        value, several = content.get(key), key in ('custom_hooks', 'param_scheduler', 'val_evaluator', 'test_evaluator')
        if value is None or key == 'default_scope' or isinstance(value, dict) or several and _dicts_only(value):
            continue
        yield f'{key} is {value!r}, but it should be a dict{" or a list of dicts" if several else ""}. Correct it.'
    for key in keys:
        if key.endswith('_dataloader') and content.get(key) and not isinstance(content[key].get('dataset'), dict):
            yield f'{key}.dataset is {content[key].get("dataset")!r}, but it should be a dict. Set it to a data set.'


def _dicts_only(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, dict) for item in value)


def _groups(content: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    group = ('val_dataloader', 'val_cfg', 'val_evaluator')
    absent = [key for key in group if content.get(key) is None]
    if 'val_dataloader' in keys and 'val_cfg' in keys and 0 < len(absent) < len(group):
        yield f'{", ".join(absent)} must be set if any of {", ".join(group)} is. Set all three, or set all to None.'


def _scope(content: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    scope = content.get('default_scope')
    if scope is not None and (not isinstance(scope, str) or scope not in scopes()):
        yield f'default_scope is {scope!r}, which is not a known scope. {suggestion(scope, scopes())}'


def _types(content: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        yield from _types_in(content.get(key), key, LOOPS if key in LOOPS_OF else PLACES.get(key))


def _types_in(value: Any, path: str, registry: Registry | None) -> Iterator[str]:
    if isinstance(value, dict):
        kind = value.get('type')
        if registry is METRICS and path.endswith('_evaluator') and kind in EVALUATOR.module_dict:
            registry = EVALUATOR
        if registry is not None and isinstance(kind, str):
            yield from _type_fault(f'{path}.type', kind, registry)
        elif kind is None and registry in TYPED and path != 'default_hooks':
            yield f'{path} has no type. Set {path}.type to the name of a registered {registry.name}.'
        elif registry is not None and kind is not None and not callable(kind):
            yield f'{path}.type is {kind!r}, but it should be the name of a registered {registry.name}. Correct it.'
        for key, item in value.items():
            inner = HOOKS if path == 'default_hooks' else PLACES.get(key)
            if key == 'metrics' and path.endswith('_evaluator'):
                inner = METRICS
            if inner is TRANSFORMS and str(kind).rpartition('.')[2] in FOREIGN:
                inner = None
            if inner is DATA_SAMPLERS and not path.endswith('_dataloader'):
                inner = None  # e.g. the sampler of points of a mask head
            yield from _types_in(item, f'{path}.{key}', inner)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _types_in(item, f'{path}.{index}', registry)


def _type_fault(path: str, name: str, registry: Registry) -> Iterator[str]:
    scope, _, key = name.rpartition('.')
    if scope and scope not in scopes():
        return  # a dotted path, which mmengine imports
    load_scope(scope)
    nodes = list(_tree(registry))
    if any(key in node.module_dict for node in nodes if not scope or node.scope == scope):
        return
    other = registered(name)  # this also imports the modules of the registries
    if any(key in node.module_dict for node in nodes if not scope or node.scope == scope):
        return
    if other is not None:
        known = [entry for node in nodes for entry in node.module_dict]
        yield f'{path} is {name!r}, which is not a {registry.name}. {suggestion(name, known)}'
    else:
        yield unknown_name(path, name, registry)


def _tree(registry: Registry) -> Iterator[Registry]:
    yield registry
    for child in registry.children.values():
        yield from _tree(child)


def _values(content: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    for key, rule in TOP.items() if 'default_hooks' in keys else ():
        fault = value_fault(content.get(key), rule)
        if fault:
            yield f'{key}{fault[0]} {fault[1]}'
    for key in keys:
        yield from _values_in(content.get(key), key)


def _values_in(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            rule = NESTED.get(f'{path.rpartition(".")[2]}.{key}', KEYS.get(key))
            fault = value_fault(item, rule) if rule is not None and not (item is None and key != 'batch_size') else None
            if fault:
                yield f'{path}.{key}{fault[0]} {fault[1]}'
            yield from _values_in(item, f'{path}.{key}')
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _values_in(item, f'{path}.{index}')


def _tests(content: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    model, path = _segmentor(content, keys)
    kind = str(model.get('type')).rpartition('.')[2]
    rules, given = TEST_CFGS.get(kind), model.get('test_cfg')
    if rules is None or given is None:
        return
    if not isinstance(given, dict):
        yield f'{path}.test_cfg is {given!r}, but it should be a dict. Correct it.'
        return
    for key, value in given.items():
        if key not in rules and (kind != OPEN or is_misspelled(key, rules)):
            yield f'{path}.test_cfg.{key} is not a setting of {model["type"]}. {suggestion(key, rules)}'
        elif key in rules and (fault := value_fault(value, rules[key])):
            yield f'{path}.test_cfg.{key}{fault[0]} {fault[1]}'


def _trains(content: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    model, path = _segmentor(content, keys)
    fault = train_cfg_fault(model.get('train_cfg'), f'{path}.train_cfg') if 'train_cfg' in keys else None
    if fault:
        yield fault


def _segmentor(content: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Mapping[str, Any], str]:
    """Returns the config of the model, or of the segmentor inside it, and its key."""
    model = (content.get('model') if 'model' in keys else None) or {}
    inside = isinstance(model.get('segmentor'), dict)
    return (model['segmentor'], 'model.segmentor') if inside else (model, 'model')


CHECKS = (_absent, _groups, _scope, _types, _values, _tests, _trains)
"""Functions that yield the faults of a config, in the order in which they are reported."""
