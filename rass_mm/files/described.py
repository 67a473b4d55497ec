"""Descriptions of the objects of a pickle, which take the place of the objects while its instructions are checked."""

from dataclasses import dataclass, field
from typing import Any


class RefusedError(Exception):
    """Reason why a pickle is not read, as the end of a sentence about the file."""


@dataclass(eq=False, slots=True)
class Call:
    """A function or a class, by its full name."""

    name: str


@dataclass(eq=False, slots=True)
class Described:
    """Any other object, e.g. a storage or a tensor.

    Args:
        kind: 'storage', 'tensor', or the name of the function that made it.
        size: number of values of a storage, or of a tensor that has more values than its storage.
    """

    kind: str
    size: int = 0


@dataclass(eq=False, slots=True)
class Parts:
    """A list."""

    parts: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Entries:
    """A dict with a number of entries."""

    count: int = 0


class Tuple:
    """A tuple.

    Args:
        parts: its values.
    """

    __slots__ = ('parts', 'size')

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts
        self.size = 1 + sum(part.size if isinstance(part, Tuple) else 1 for part in parts)
        """Number of values in it at all levels."""
