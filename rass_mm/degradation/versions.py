"""Recipe versions in the headers of manifests and in configs.

A manifest without a version has version 1. A config without a version uses the default.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rass_mm.degradation.recipe import OSEDIFF


def manifest_version(header: Mapping[str, Any]) -> int:
    """Returns the recipe version of a degraded copy from the first line of its manifest."""
    recipe = header.get('recipe')
    return recipe.get('version', 1) if isinstance(recipe, Mapping) else 1  # written before versions were introduced


def step_version(step: Mapping[str, Any]) -> int:
    """Returns the recipe version of an `LQDegradation` step in a config."""
    return (step.get('recipe') or {}).get('version', OSEDIFF.version)


def lq_steps(value: Any) -> Iterator[dict[str, Any]]:
    """Yields the `LQDegradation` steps in a part of a config, at any depth."""
    if isinstance(value, Mapping):
        kind = value.get('type')  # a name, or a class
        if getattr(kind, '__name__', str(kind)).rpartition('.')[2] == 'LQDegradation':
            yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from lq_steps(part)
