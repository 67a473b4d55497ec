"""Reads JSON files whose content must have a given type, such as a `TypedDict`."""

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from rass_mm.errors import DataError, RassError, clipped, shown
from rass_mm.files.regular import check_regular

ALLOWED = ConfigDict(strict=True, extra='allow', arbitrary_types_allowed=True)
"""Configuration of a `TypedDict`: further keys are accepted, and values are not converted."""


def _file_name(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError('a file name')
    return value


FileName = Annotated[str, PlainValidator(_file_name)]
"""Text that is not empty. It may contain bytes that are not UTF-8, which pydantic does not accept in other texts."""


@with_config(ALLOWED)
class BaseIdentity(TypedDict):
    """Identity of a base in adapters and checkpoints, see `rass_mm.diffusion.base.DiffusionBase.identity`."""

    config: Annotated[str, Field(min_length=1)]
    weights: Annotated[str, Field(min_length=1)]


def read_json(path: str | os.PathLike, kind: Any, fix: str, error: type[RassError] = DataError) -> Any:
    """Reads a JSON file and checks its content.

    Args:
        path: the file, encoded as UTF-8.
        kind: the required type, e.g. a `TypedDict` or `list[str]`.
        fix: a sentence for the end of the message, which says what to do about an unusable file.
        error: the class of errors to raise.

    Raises:
        RassError: of the given class, if the file cannot be read, is not JSON, or has another content. The message
            contains the file, the key and its value.
    """
    check_regular(path, fix, error)
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'), object_pairs_hook=_without_repetition)
    except FileNotFoundError:
        raise error(f'{path} does not exist. {fix}') from None
    except RecursionError:
        raise error(f'{path} cannot be read as JSON (its lists are nested too deeply). {fix}') from None
    except (OSError, ValueError) as reason:
        raise error(f'{path} cannot be read as JSON ({reason}). {fix}') from None
    return checked(content, kind, str(path), fix, error)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the object of some keys. Readers differ in which of two equal keys counts."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'the key {clipped(next(key for key in keys if keys.count(key) > 1))!r} is given twice')
    return content


def checked(content: Any, kind: Any, name: str, fix: str, error: type[RassError] = DataError) -> Any:
    """Returns the content unchanged if it has the required type.

    Args:
        content: the content of a JSON file.
        kind: the required type.
        name: the name of the file, for the message.
        fix: a sentence for the end of the message.
        error: the class of errors to raise.

    Raises:
        RassError: of the given class, if the content has another type.
    """
    try:
        _adapter(kind).validate_python(content, strict=True)
    except ValidationError as found:
        raise error(f'{name}: {described(found)}. {fix}') from None
    except RecursionError:
        raise error(f'{name} cannot be read (its lists are nested too deeply). {fix}') from None
    return content


def described(found: ValidationError) -> str:
    """Describes the first fault: the key, its value and the expected type."""
    fault = found.errors(include_url=False)[0]
    # Pydantic adds the name of a type to the place of a value that may have several types.
    key = '.'.join(str(part) for part in fault['loc'] if '[' not in str(part))
    if fault['type'] == 'missing':
        return f'the key {key} is missing'
    expected = re.sub('^[A-Z][a-z]+ should ', '', fault['msg'].replace('Value error, ', 'Input should be '))
    return f'{key or "the content"} is {shown(fault["input"])}, but it should {expected}'


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)
