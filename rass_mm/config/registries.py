"""Lookup of names in mmengine's registries, without importing the module that a name refers to."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mmengine.registry import Registry, registry, root

ON_DEMAND = {'mmagic': 'rass_mm.restoration'}
"""Scopes that are loaded on first use, and the module that loads them."""
FIRST = ('mmengine', 'mmseg')


def registered(name: str) -> Any | None:
    """Returns the class or function registered under a name in any registry, or None.

    Args:
        name: a key, or a scope and a key, e.g. `IoUMetric` or `mmdet.CrossEntropyLoss`. Other dotted names are never
            found.
    """
    scope, dot, key = name.rpartition('.')
    if (dot and not scope) or scope and scope not in scopes():
        return None
    load_scope(scope)
    candidates = [node for node in _registries() if not scope or node.scope == scope]
    for node in candidates:
        if key in node.module_dict:
            return node.module_dict[key]
    for node in sorted(candidates, key=lambda node: node.scope not in FIRST):
        try:
            node.import_from_location()
        except ImportError:
            # Another package's module may need what is not installed, e.g. onedl-mmdetection's imgaug.
            if scope or node.scope in FIRST:
                raise
        if key in node.module_dict:
            return node.module_dict[key]
    return None


def registered_name(kind: type) -> str | None:
    """Returns the name under which `registered` finds a class, or None if the class is not registered."""
    for node in _registries():
        for key, entry in node.module_dict.items():
            if entry is kind:
                return key if registered(key) is kind else f'{node.scope}.{key}'
    return None


def scopes() -> set[str]:
    """Returns the scopes that a name may begin with."""
    return {node.scope for node in _registries()} | set(ON_DEMAND)


def load_scope(scope: str) -> None:
    """Registers the classes of a scope that is loaded on demand.

    Raises:
        InstallationError: the package of the scope is missing or broken.
    """
    if scope in ON_DEMAND:
        importlib.import_module(ON_DEMAND[scope])


def _registries() -> Iterator[Registry]:
    for value in vars(root).values():
        if isinstance(value, Registry):
            yield from _tree(value)


def _tree(node: Registry) -> Iterator[Registry]:
    # mmagic's modules need the preparation in rass_mm.restoration before they are first imported.
    if ON_DEMAND.get(node.scope, 'sys') in sys.modules:
        yield node
    for child in node.children.values():
        yield from _tree(child)


def stop_importing() -> None:
    """Stops the registries of this process from importing anything by a name that is not registered.

    This function is called when a config that is data is read. The rules for data cover the keys whose values are
    usually looked up in a registry. However, a class may look up an argument with another key, and a name may be looked
    up in a registry in which it is not registered.
    """
    registry.get_object_from_string = _import_nothing
    registry.import_module = _import_known


def _import_nothing(name: str) -> None:
    """Returns None, which mmengine treats as a name that exists in no registry and no module."""


def _import_known(name: str) -> ModuleType:
    """Imports a module for a registry.

    A name in a config can request the module `SCOPE.registry`. It is therefore imported only if the scope is known.

    Raises:
        ImportError: the scope is not known.
    """
    scope, _, rest = name.partition('.')
    if rest == 'registry' and scope not in scopes():
        raise ImportError(f'{scope!r} is not a known scope.')
    return importlib.import_module(name)
