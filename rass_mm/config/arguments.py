"""Checks of the arguments of this package's classes against their annotations."""

import inspect
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

from rass_mm.config.names import suggestion
from rass_mm.errors import shown

ENDLESS = 10**9
"""Number of steps that stands for infinity, as in mmengine."""


def _as_whole(value: Any) -> Any:
    """Returns a whole float, e.g. 2e4, as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_end(value: Any) -> Any:
    """Returns a whole float as an integer, and infinity as `ENDLESS`."""
    return ENDLESS if isinstance(value, float) and value == math.inf else _as_whole(value)


Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveOrInfinite = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Timestep = Annotated[int, Field(ge=0, lt=1000)]
Steps = Annotated[int, BeforeValidator(_as_whole), Field(ge=1)]
"""Number of steps, which may be a whole float."""
FirstStep = Annotated[int, BeforeValidator(_as_whole), Field(ge=0)]
LastStep = Annotated[int, BeforeValidator(_as_end), Field(ge=1)]
Interval = Annotated[int, BeforeValidator(_as_end)]
Flag = bool | Literal[0, 1]
Name = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def argument_fault(kind: type, arguments: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns the key of the first wrong argument and what is wrong with it, or None.

    Args:
        kind: a class whose constructor has annotations.
        arguments: keyword arguments.
    """
    hints, takes_all = _hints(kind)
    for key, value in arguments.items():
        if key in hints:
            fault = value_fault(value, hints[key])
            if fault:
                return f'{key}{fault[0]}', fault[1]
        elif not takes_all:
            return key, f'is not a setting of {kind.__name__}. {suggestion(key, hints)}'
    return None


def value_fault(value: Any, kind: Any) -> tuple[str, str] | None:
    """Returns the rest of the key of a wrong value, e.g. '.rank', and what is wrong with it, or None.

    A list is accepted where a tuple is expected, and a tuple where a list is expected. A NumPy value is accepted like
    the numbers that it contains.

    Args:
        value: a value of a config.
        kind: the required type, which may have constraints of pydantic.
    """
    adapter = _adapter(kind)
    if adapter is None:
        return None
    faults = []
    plain = _without_numpy(value)
    for form in (plain, _with(plain, list), _with(plain, tuple), value):
        try:
            adapter.validate_python(form, strict=True)
            return None
        except ValidationError as error:
            faults.append(_described(error, value))
        except Exception:  # a value that pydantic cannot look into
            return None
    return faults[0]


def _described(error: ValidationError, value: Any) -> tuple[str, str]:
    faults = error.errors(include_url=False)
    deepest = max(faults, key=lambda fault: len(fault['loc']))
    several = len({fault['loc'][:1] for fault in faults}) > 1 and faults[0]['input'] is not deepest['input']
    messages = dict.fromkeys(_expected(fault['msg']) for fault in faults)
    if several or len(messages) > 1:
        return '', f'is {shown(value)}, but it should {" or ".join(messages)}.'
    key = ''.join(f'.{part}' for part in deepest['loc'] if isinstance(part, int) or part.isidentifier())
    return key, f'is {shown(deepest["input"])}, but it should {next(iter(messages))}.'


def _expected(message: str) -> str:
    """Returns the end of pydantic's message that follows the word 'should'."""
    return message.partition(' should ')[2].replace('an instance of Sequence', 'a list') or f'be valid ({message})'


def _without_numpy(value: Any) -> Any:
    """Returns a copy in which NumPy arrays are lists and NumPy numbers those of Python."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(_without_numpy(item) for item in value)
    if isinstance(value, dict):
        return {key: _without_numpy(item) for key, item in value.items()}
    return value


def _with(value: Any, kind: type) -> Any:
    """Returns a copy in which all lists and tuples are of one kind."""
    if isinstance(value, list | tuple):
        return kind(_with(item, kind) for item in value)
    if isinstance(value, dict):
        return {key: _with(item, kind) for key, item in value.items()}
    return value


@lru_cache(maxsize=256)
def _hints(kind: type) -> tuple[dict[str, Any], bool]:
    """Returns the annotations of the arguments of a class, and whether it accepts further arguments."""
    named = inspect.signature(kind.__init__).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in named.values())
    try:
        hints = get_type_hints(kind.__init__, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    own = str(getattr(kind.__init__, '__module__', '')).startswith('rass_mm')  # absent if the class has no constructor
    if not own:  # mmengine converts whole floats
        hints = {name: Interval if hint is int else hint for name, hint in hints.items()}
    return {name: hints.get(name, Any) for name in named if name not in ('self', 'kwargs', 'args')}, takes_all


@lru_cache(maxsize=512)
def _adapter(kind: Any) -> TypeAdapter | None:
    try:
        return TypeAdapter(kind, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    except PydanticUserError:  # the type is configured already, e.g. a TypedDict
        pass
    except PydanticSchemaGenerationError:
        return None
    try:
        return TypeAdapter(kind)
    except PydanticUserError:
        return None
