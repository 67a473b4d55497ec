"""The names that are registered in mmengine's registries, looked up without importing what a name says."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mmengine.registry import Registry, registry, root

ON_DEMAND = {'mmagic': 'rass_mm.restoration'}
"""Scopes that are loaded when they are first named, and the module that does it."""
FIRST = ('mmengine', 'mmseg')


def registered(name: str) -> Any | None:
    """The class or function registered under a name, in any registry; None where there is none.

    Args:
        name: a key, or a scope and a key: `IoUMetric`, `mmdet.CrossEntropyLoss`. No other dotted name is found.
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
        node.import_from_location()
        if key in node.module_dict:
            return node.module_dict[key]
    return None


def scopes() -> set[str]:
    """Scopes a name may begin with."""
    return {node.scope for node in _registries()} | set(ON_DEMAND)


def load_scope(scope: str) -> None:
    """Registers what belongs to a scope that is loaded on demand.

    Raises:
        InstallationError: its package is absent or broken.
    """
    if scope in ON_DEMAND:
        importlib.import_module(ON_DEMAND[scope])


def _registries() -> Iterator[Registry]:
    for value in vars(root).values():
        if isinstance(value, Registry):
            yield from _tree(value)


def _tree(node: Registry) -> Iterator[Registry]:
    # mmagic's modules need what rass_mm.restoration prepares before their first import.
    if ON_DEMAND.get(node.scope, 'sys') in sys.modules:
        yield node
    for child in node.children.values():
        yield from _tree(child)


def stop_importing() -> None:
    """From here on, the registries of this process import nothing by a name that they do not have.

    Called when data is read. The rules for data know the keys under which a name is looked up; a class may look up an
    argument of another key, and a name may stand where another registry is asked for it.
    """
    registry.get_object_from_string = _import_nothing
    registry.import_module = _import_known


def _import_nothing(name: str) -> None:
    """None, which mmengine takes for a name that no registry and no module has."""


def _import_known(name: str) -> ModuleType:
    """Imports a registry's own modules; of `SCOPE.registry`, which a name asks for, known scopes only."""
    scope, _, rest = name.partition('.')
    if rest == 'registry' and scope not in scopes():
        raise ImportError(f'{scope!r} is not a known scope.')
    return importlib.import_module(name)
