"""The parts of a config: dicts with a `type`, and their dotted keys."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rass_mm.config.names import RUNNER_KEYS


class Parts:
    """The parts of a config.

    Args:
        config: the config.
        order: top-level keys that are searched before the others.
        source: file of the config, for messages.
    """

    def __init__(self, config: Mapping[str, Any], order: tuple[str, ...], source: str | None = None) -> None:
        self.config, self.order, self.source = config, order, source

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

    def common_part(self, values: Iterable[Any]) -> tuple[str, Mapping[str, Any]] | None:
        """Returns the outermost of the given parts of the config and its key, or None if not all others are inside."""
        found = {self.path_of(value): value for value in values if isinstance(value, dict) and value}
        found.pop(None, None)
        shortest = min(found, key=len, default='')
        if not shortest or any(f'{path}.'.removeprefix(f'{shortest}.') == f'{path}.' for path in found):
            return None
        return shortest, found[shortest]

    def _parts(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        keys = dict.fromkeys((*self.order, *RUNNER_KEYS))
        for key in keys:
            yield from dicts(self.config.get(key), key)


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


def dicts(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields all dicts in a value, and their dotted keys."""
    if isinstance(value, dict):
        yield path, value
        for key, item in value.items():
            yield from dicts(item, f'{path}.{key}')
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from dicts(item, f'{path}.{index}')
