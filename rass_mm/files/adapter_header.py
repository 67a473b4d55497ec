"""Header of an adapter file, which is read without torch."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt
from typing_extensions import TypedDict

from rass_mm.errors import AdapterError
from rass_mm.files.schemas import BaseIdentity, checked
from rass_mm.files.tensor_headers import read_tensor_header

HEADER, TERMS = 'rass_mm.adapter', 'terms'
"""Key of the header in the metadata of a safetensors file, and of the licences in the header."""
AGAIN = 'Copy the file again, or pass another one that was written by training or by rass-mm convert.'
Text = Annotated[str, Field(min_length=1)]
Scale = Annotated[FiniteFloat, Field(gt=0)]
Targets = Annotated[list[Text], Field(min_length=1)]
Name = Annotated[str, Field(min_length=1, pattern=r'^[^.]+$')]


class Lora(TypedDict):
    """Settings of a LoRA."""

    rank: PositiveInt
    alpha: Scale
    targets: Targets


class AdapterRecipe(TypedDict):
    """Settings with which the adapter of a restorer is used."""

    form: Literal['residual', 'x0']
    timestep: NonNegativeInt
    prompt: Text
    classes: Annotated[list[Text], Field(max_length=10_000)]


class Header(Lora):
    """Header of an adapter file, see `write_adapter`."""

    name: Name
    base: BaseIdentity
    hash: Text
    recipe: NotRequired[AdapterRecipe]
    vae: NotRequired[Lora]


def check_header(header: Any, path: str | os.PathLike) -> None:
    """Checks the types and the ranges of the values of a header.

    Raises:
        AdapterError: a value is wrong or missing. The message names it.
    """
    checked(header, Header, f'{path}: the header of the adapter is not valid', AGAIN, AdapterError)


def adapter_header(path: Path) -> dict[str, Any]:
    """Reads the header of an adapter file without its tensors.

    Raises:
        AdapterError: the file has no header, or its header cannot be used.
        CheckpointError: the file is not a safetensors file.
    """
    metadata = read_tensor_header(path).metadata
    try:
        content = json.loads(metadata[HEADER])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise AdapterError(f'{path}: the header of the adapter is missing or not JSON. {AGAIN}') from None
    check_header(content, path)
    return content
