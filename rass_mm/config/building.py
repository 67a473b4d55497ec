"""Errors while mmengine builds and runs the parts of a config, with the key and the value that caused them.

mmengine, mmseg and PyTorch raise errors such as `KeyError`, `TypeError` or `AssertionError` without the place in the
config. Inside `explained`, such an error becomes a ConfigError with the dotted key of the part, its class and, for a
misspelled name, the most similar known one. Errors that pass through code of the user are not changed.
"""

import functools
import inspect
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.registry import Registry

from rass_mm.config.arguments import argument_fault
from rass_mm.config.names import RUNNER_KEYS, suggestion
from rass_mm.config.registries import scopes
from rass_mm.config.shipped import PACKAGE
from rass_mm.errors import ConfigError, RassError

LONGEST, VALUE = 300, 60
"""Characters of an error's message and of a value in a message."""
STANDARD = os.path.realpath(sysconfig.get_path('stdlib')) + os.sep
OWN = str(PACKAGE) + os.sep
WORKER_FRAME = re.compile(r'^\s*File "([^"]+)", line \d+', re.MULTILINE)


class _Context:
    """The config that is in use."""

    def __init__(self, config: Mapping[str, Any], order: tuple[str, ...]) -> None:
        self.config, self.order = config, order

    def path_of(self, part: Mapping[str, Any]) -> str | None:
        """Returns the dotted key of the part of the config that is equal or most similar to a given one."""
        best, score = None, 0.0
        for path, found in self._parts():
            likeness = _likeness(found, part)
            if likeness > score:
                best, score = path, likeness
        return best

    def part_of(self, made: Any) -> tuple[str, Mapping[str, Any]] | None:
        """Returns the first part of the config with the type of an object, and its dotted key, or None."""
        name = type(made).__name__
        return next(((path, part) for path, part in self._parts() if _type_name(part) == name), None)

    def _parts(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        keys = dict.fromkeys((*self.order, *RUNNER_KEYS))
        for key in keys:
            yield from _dicts(self.config.get(key), key)


def _type_name(part: Mapping[str, Any]) -> str:
    kind = part.get('type')
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def _likeness(found: Mapping[str, Any], part: Mapping[str, Any]) -> float:
    """Returns how well a part of the config explains the config of an object, or 0 if it does not."""
    if not found or _type_name(found) != _type_name(part):
        return 0
    shared = sum(key in part and _same(part[key], value) for key, value in found.items())
    return shared / (len(found) + 0.5 * len(part.keys() - found.keys()))


def _same(one: Any, other: Any) -> bool:
    try:
        return one is other or bool(one == other)
    except Exception:  # e.g. an array, whose comparison has no truth value
        return False


def _dicts(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, dict):
        yield path, value
        for key, item in value.items():
            yield from _dicts(item, f'{path}.{key}')
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _dicts(item, f'{path}.{index}')


_open: ContextVar[tuple[_Context, ...]] = ContextVar('open', default=())


@contextmanager
def explained(config: Config | Mapping[str, Any], *order: str) -> Iterator[None]:
    """Context manager that turns errors of a config's parts into a ConfigError that names the part.

    Args:
        config: the config in use.
        order: top-level keys that are used. They are searched before the other keys.

    Raises:
        ConfigError: the block raised an error other than a RassError, without running code of the user.
    """
    content = config._cfg_dict.to_dict() if isinstance(config, Config) else config
    token = _open.set((*_open.get(), _Context(content, order)))
    try:
        yield
    except (RassError, OSError, MemoryError, torch.OutOfMemoryError, torch.distributed.DistError):
        raise
    except Exception as error:
        if through_user_code(error):
            raise
        raise ConfigError(_running_fault(_open.get()[-1], error, getattr(config, 'filename', None))) from error
    finally:
        _open.reset(token)


def adapt_registries() -> None:
    """Makes all registries of mmengine report the part of the config that cannot be built, inside `explained`."""
    Registry.build = _reporting(Registry.build)


def _reporting(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def build_and_explain(self: Registry, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        if not _open.get():
            return build(self, cfg, *args, **kwargs)
        context = _open.get()[-1]
        fault = _early_fault(context, self, cfg)
        if fault:
            raise ConfigError(fault)
        try:
            return build(self, cfg, *args, **kwargs)
        except (RassError, OSError, MemoryError):
            raise
        except Exception as error:
            if through_user_code(error) or not isinstance(cfg, dict):
                raise
            raise ConfigError(_building_fault(context, self, cfg, error)) from error

    return build_and_explain


def _class_of(registry: Registry, cfg: Any) -> Any:
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    if not isinstance(kind, str):
        return kind
    scope = kind.rpartition('.')[0]
    return registry.get(kind) if not scope or scope in scopes() else None  # mmengine would import another name


def _early_fault(context: _Context, registry: Registry, cfg: Any) -> str | None:
    """Checks the arguments of a class of this package, whose annotations state the allowed values."""
    kind = _class_of(registry, cfg)
    if not inspect.isclass(kind) or not kind.__module__.startswith('rass_mm.'):
        return None
    found = argument_fault(kind, {key: value for key, value in cfg.items() if key not in ('type', '_scope_')})
    return found and f'{_joined(context.path_of(cfg), found[0])} {found[1]}'


def _joined(path: str | None, key: str) -> str:
    return f'{path}.{key}' if path else key


def through_user_code(error: BaseException) -> bool:
    """Returns whether an error passed through code that is neither of this package nor of an installed one."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    files += WORKER_FRAME.findall(str(error))
    return not all(map(in_library, files))


def in_library(file: str) -> bool:
    """Returns whether a file of code is part of Python, of this package or of an installed one."""
    if file.startswith(('<', OWN)) or not {'site-packages', 'dist-packages'}.isdisjoint(Path(file).parts):
        return True
    return os.path.realpath(file).startswith(STANDARD)


def _building_fault(context: _Context, registry: Registry, cfg: Mapping[str, Any], error: Exception) -> str:
    path, kind = context.path_of(cfg) or registry.name, cfg.get('type')
    if kind is None:
        return f'{path} has no type. Set {path}.type to the name of a registered {registry.name}.'
    name = kind if isinstance(kind, str) else kind.__name__
    if isinstance(error, KeyError) and f'{name} is not in the' in str(error):
        return unknown_name(f'{path}.type', name, registry)
    text = reason(error)
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", text)
    if unexpected:
        key, owner = unexpected[1], _owner(error, registry, cfg)
        place = next((f'{at}.{key}' for at, part in _dicts(cfg, path) if key in part), f'{path}.{key}')
        return f'{place} is not a setting of {_name(owner)}. {suggestion(key, parameters(owner))}'
    missing = re.search(r'missing \d+ required .*argument[s]?: (.*)', text)
    if missing:
        return f'{path} ({name}) lacks the setting {missing[1]}. Add it.'
    return f'{path} ({name}) cannot be built: {text}. {settings(cfg, path)}'


def _owner(error: Exception, registry: Registry, cfg: Mapping[str, Any]) -> Any:
    """Returns the class whose constructor raised the error about its arguments."""
    found = re.search(r'(\w+)(?:\.__init__)?\(\)', str(error))
    kind = _class_of(registry, cfg)
    bases = getattr(kind, '__mro__', ())
    other = next((base for base in bases if found and base.__name__ == found[1]), None)
    return kind if other is not None or found is None else _named_in_frames(error, found[1]) or kind


def _named_in_frames(error: Exception, name: str) -> Any:
    for frame in _frames(error.__traceback__):
        found = frame.f_globals.get(name)
        if inspect.isclass(found):
            return found
    return None


def _name(kind: Any) -> str:
    return getattr(kind, '__name__', str(kind))


def parameters(kind: Any) -> list[str]:
    """Returns the names of the arguments of a class, including those that it passes on to its base classes."""
    names: dict[str, None] = {}
    for base in getattr(kind, '__mro__', (kind,)):
        constructor = base.__dict__.get('__init__', base) if inspect.isclass(base) else base
        try:
            found = inspect.signature(constructor).parameters.values()
        except (TypeError, ValueError):
            break
        names |= dict.fromkeys(one.name for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY))
        if not any(one.kind is one.VAR_KEYWORD for one in found):
            break
    return [name for name in names if name not in ('self', 'params')]


def unknown_name(path: str, name: str, registry: Registry) -> str:
    """Describes the name of a class that is not registered, with the most similar registered name."""
    known = [key for node in _related(registry) for key in node.module_dict]
    return (
        f'{path} is {name!r}, but {name} is not registered as a {registry.name}. {suggestion(name, known)} A class of '
        'your own must be imported with custom_imports.'
    )


def _related(registry: Registry) -> Iterator[Registry]:
    while registry.parent is not None:
        registry = registry.parent
    yield registry
    yield from registry.children.values()


def reason(error: BaseException) -> str:
    """Returns the kind and the message of an error in one line."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if 'Original Traceback' in text:  # of a data worker
        text = text.strip().splitlines()[-1]
    text = ' '.join(text.split()).rstrip('.')
    text = text if len(text) <= LONGEST else f'{text[:LONGEST]}...'
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def settings(cfg: Mapping[str, Any], path: str) -> str:
    """Returns a sentence that lists the settings of a part of a config."""
    listed = ', '.join(f'{key}={_shown(value)}' for key, value in cfg.items() if key not in ('type', '_scope_'))
    return f'Correct its settings ({path}): {listed}.' if listed else f'Correct {path}.'


def _shown(value: Any) -> str:
    text = ' '.join(repr(value).split())
    return text if len(text) <= VALUE else f'{text[: VALUE - 3]}...'


def _frames(trace: TracebackType | None) -> list[FrameType]:
    """Returns the frames of a traceback, the innermost first."""
    return [frame for frame, _ in traceback.walk_tb(trace)][::-1]


def _common_part(context: _Context, values: Iterable[Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Returns the outermost of the given parts of a config and its key, or None if not all others are inside it."""
    found = {context.path_of(value): value for value in values if isinstance(value, dict) and value}
    found.pop(None, None)
    shortest = min(found, key=len, default='')
    if not shortest or any(f'{path}.'.removeprefix(f'{shortest}.') == f'{path}.' for path in found):
        return None
    return shortest, found[shortest]


def _running_fault(context: _Context, error: Exception, source: str | None) -> str:
    """Describes an error outside of a constructor, with the part of the config whose object or settings were in use."""
    text, own = reason(error), source or 'the config'
    for frame in _frames(error.__traceback__):
        found = context.part_of(frame.f_locals.get('self'))
        found = found or _common_part(context, frame.f_locals.values())
        if found:
            return f'{found[0]} cannot be used: {text}. {settings(found[1], found[0])}'
    place = next((frame for frame in _frames(error.__traceback__) if frame.f_code.co_filename.startswith(OWN)), None)
    file = None if place is None else Path(place.f_code.co_filename).relative_to(PACKAGE)
    where = '' if place is None else f' (rass_mm/{file}:{place.f_lineno})'
    return f'{own} cannot be used: {text}{where}. Correct the setting that the message mentions.'
