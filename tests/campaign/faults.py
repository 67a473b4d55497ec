"""Ways to damage files and JSON values, by rule."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Damage = Callable[[bytes], bytes]

DAMAGES: dict[str, Damage] = {
    'empty': lambda data: b'',
    'one byte': lambda data: data[:1],
    'first half': lambda data: data[: len(data) // 2],
    'cut at 95 per cent': lambda data: data[: len(data) * 95 // 100],
    'cut at 99 per cent': lambda data: data[: len(data) * 99 // 100],
    'without its last byte': lambda data: data[:-1],
    'zeros': lambda data: bytes(len(data)),
    'random bytes': lambda data: random.Random(0).randbytes(max(len(data), 64)),
    'web page': lambda data: b'<!DOCTYPE html><html><body>404 Not Found</body></html>\n' * 20,
    'Git LFS pointer': lambda data: (
        b'version https://git-lfs.github.com/spec/v1\noid sha256:' + b'0' * 64 + b'\nsize 9\n'
    ),
}
"""Damages that no file of any format survives."""


def damaged_middle(data: bytes, count: int = 64) -> bytes:
    """Returns the bytes with `count` inverted ones in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes(255 - value for value in data[middle : middle + count]) + data[middle + count :]


def damage_file(path: Path, damage: Damage) -> None:
    """Replaces a file by its damaged bytes."""
    path.write_bytes(damage(path.read_bytes()))


WRONG: dict[str, Any] = {'null': None, 'text': 'seven', 'number': 7.5, 'list': [1], 'mapping': {'a': 1}, 'true': True}
"""Values of which all but those of one type are wrong for a key."""
BROKEN_JSON: dict[str, bytes] = {
    'empty': b'',
    'cut': b'{"a": [1, 2',
    'no JSON': b'name: x\n',
    'binary': bytes(range(256)),
    'not UTF-8': b'{"a": "\xe4"}',
    'deep': b'[' * 100_000 + b']' * 100_000,
    'a list': b'[1, 2]',
    'a text': b'"text"',
    'null': b'null',
    'a number': b'12',
}


def kind_of(value: Any) -> str:
    """Returns the key of `WRONG` whose values have the type of a value."""
    if value is None:
        return 'null'
    if isinstance(value, bool):
        return 'true'
    if isinstance(value, (int, float)):
        return 'number'
    return {str: 'text', list: 'list', tuple: 'list', dict: 'mapping'}[type(value)]


def wrong_values(content: dict, keys: list[str]) -> Iterator[tuple[str, dict]]:
    """Yields a name and a copy of a mapping for each wrong type of each key, and without the key.

    Args:
        content: valid content.
        keys: keys to damage, with dots for nested ones.
    """
    for key in keys:
        *outer, last = key.split('.')
        for name, value in [*WRONG.items(), ('absent', ...)]:
            made = copy.deepcopy(content)
            inner = made
            for part in outer:
                inner = inner[int(part)] if isinstance(inner, list) else inner[part]
            last_key = int(last) if isinstance(inner, list) else last
            if value is not ... and kind_of(inner[last_key]) == name:
                continue
            if value is ...:
                if isinstance(inner, list):
                    continue
                inner.pop(last_key)
            else:
                inner[last_key] = value
            yield f'{key} {name}', made


def write_json(path: Path, content: Any) -> None:
    """Writes a value as JSON."""
    path.write_text(json.dumps(content))
