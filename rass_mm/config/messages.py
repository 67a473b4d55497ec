"""Messages of errors while the parts of a config are built: the dotted key, the class and the most similar names."""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

from rass_mm.config.arguments import argument_fault
from rass_mm.config.frames import OWN, frames
from rass_mm.config.late import late_fault
from rass_mm.config.names import suggestion
from rass_mm.config.parts import Parts, dicts
from rass_mm.config.registries import registered, scopes
from rass_mm.config.shipped import PACKAGE
from rass_mm.errors import clipped

LONGEST = 300
"""Characters of an error's message."""


def _class_of(registry: Registry, cfg: Any) -> Any:
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    if not isinstance(kind, str):
        return kind
    scope = kind.rpartition('.')[0]
    if scope and scope not in scopes():
        return None  # mmengine would import such a name
    # The runner builds data sets with mmengine's own registry, which looks them up in that of the default scope.
    return registry.get(kind) or registered(kind)


def early_fault(parts: Parts, registry: Registry, cfg: Any) -> str | None:
    """Checks the arguments of a class of this package, whose annotations state the allowed values, or of mmengine."""
    kind = _class_of(registry, cfg)
    if not inspect.isclass(kind):
        return None
    given = {key: value for key, value in cfg.items() if key not in ('type', '_scope_')}
    found = argument_fault(kind, given) if kind.__module__.startswith('rass_mm.') else late_fault(kind, given)
    return found and f'{_joined(parts.path_of(cfg), found[0])} {found[1]}'


def _joined(path: str | None, key: str) -> str:
    return f'{path}.{key}' if path else key


def building_fault(parts: Parts, registry: Registry, cfg: Mapping[str, Any], error: Exception) -> str:
    """Describes an error in a constructor that a registry called."""
    path, kind = parts.path_of(cfg) or registry.name, cfg.get('type')
    if kind is None:
        return f'{path} has no type. Set {path}.type to the name of a registered {registry.name}.'
    name = kind if isinstance(kind, str) else kind.__name__
    if isinstance(error, KeyError) and f'{name} is not in the' in str(error):
        return unknown_name(f'{path}.type', name, registry)
    text = reason(error)
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", text)
    if unexpected:
        key, owner = unexpected[1], _owner(error, registry, cfg)
        place = next((f'{at}.{key}' for at, part in dicts(cfg, path) if key in part), f'{path}.{key}')
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
    return kind if other is not None or found is None else _named_inframes(error, found[1]) or kind


def _named_inframes(error: Exception, name: str) -> Any:
    for frame in frames(error.__traceback__):
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
    text = clipped(text.rstrip('. \n'), LONGEST)
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def settings(cfg: Mapping[str, Any], path: str) -> str:
    """Returns a sentence that lists the settings of a part of a config."""
    listed = ', '.join(f'{key}={clipped(repr(value))}' for key, value in cfg.items() if key not in ('type', '_scope_'))
    return f'Correct its settings ({path}): {listed}.' if listed else f'Correct {path}.'


def reading_fault(parts: Parts, error: Exception) -> str:
    """Describes another error, with the part of the config whose object or settings were in use."""
    text, own = reason(error), parts.source or 'the config'
    for frame in frames(error.__traceback__):
        found = parts.part_of(frame.f_locals.get('self'))
        found = found or parts.common_part(frame.f_locals.values())
        if found:
            return f'{found[0]} cannot be used: {text}. {settings(found[1], found[0])}'
    place = next((frame for frame in frames(error.__traceback__) if frame.f_code.co_filename.startswith(OWN)), None)
    file = None if place is None else Path(place.f_code.co_filename).relative_to(PACKAGE)
    where = '' if place is None else f' (rass_mm/{file}:{place.f_lineno})'
    return f'{own} cannot be used: {text}{where}. Correct the setting that the message mentions.'
