"""Recipe versions in the headers of manifests and in configs; what has none is of version 1 or of the default."""

from collections.abc import Iterator, Mapping
from typing import Any

from rass_mm.degradation.recipe import OSEDIFF


def manifest_version(header: Mapping[str, Any]) -> int:
    """Recipe version of a degraded copy, from the first line of its manifest."""
    recipe = header.get('recipe')
    return recipe.get('version', 1) if isinstance(recipe, Mapping) else 1  # written before there were versions


def step_version(step: Mapping[str, Any]) -> int:
    """Recipe version of an `LQDegradation` step of a config."""
    return (step.get('recipe') or {}).get('version', OSEDIFF.version)


def lq_steps(value: Any) -> Iterator[dict[str, Any]]:
    """The `LQDegradation` steps in a part of a config, at any depth."""
    if isinstance(value, Mapping):
        if str(value.get('type')).rpartition('.')[2] == 'LQDegradation':
            yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from lq_steps(part)
